"""Settings of the commands: one frozen dataclass each; :mod:`dopr.config_layers` makes them from a file and flags.

Each field is documented once, in its metadata; the command line's help is generated from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from dopr.budget import Budget
from dopr.errors import ConfigError, suggest
from dopr.trl_fields import check_overrides

FEATURES = ("hidden", "category", "none")


def _opt(default: Any, help_: str, **extra: Any) -> Any:
    """A documented field; a callable default is a factory."""
    metadata = {"help": help_, **extra}
    return (
        field(default_factory=default, metadata=metadata)
        if callable(default)
        else field(default=default, metadata=metadata)
    )


@dataclass(frozen=True, kw_only=True)
class ProblemSettings:
    """Where the problems come from and how the policy is asked."""

    model: str = _opt("tiny", "Policy: a local directory, a hub name, tiny (packaged) or smollm2-135m.")
    data: str = _opt(
        "world:latent-strategy",
        "Problems: a .jsonl/.json/.csv/.parquet file, a directory, org/name on the hub, gym:TASK or world:NAME.",
    )
    split: str | None = _opt(None, "Split of the problems to load; default: train, or for dopr eval test.")
    size: int | None = _opt(None, "Use at most this many problems; for gym: and world: generate this many.")
    prompt_column: str | None = _opt(None, "Column with the prompt; default: found by its usual names.")
    answer_column: str | None = _opt(None, "Column with the gold answer; default: found by its usual names.")
    id_column: str | None = _opt(
        None, "Column with stable ids; default: id, extra_info.index, or a hash of the prompt."
    )
    template: str | None = _opt(
        None, "Words around the prompt: plain, number, boxed, choice, tags, or text with {prompt}."
    )
    system: str | None = _opt(None, "System message (needs chat).")
    chat: bool | None = _opt(None, "Use the tokenizer's chat template; default: whenever it has one.")
    chat_option: dict[str, Any] = _opt(
        dict, "Argument of the chat template as NAME=VALUE, such as enable_thinking=false; repeatable."
    )
    reward: tuple[str, ...] = _opt(
        ("auto",),
        "Verifier: math, number, exact, choice, regex:PATTERN, code, code:partial, gym, world, or module:function; also "
        "format:boxed|answer|think and overlong:MAX,BUFFER, and 'A&B' for the smaller of two; repeatable.",
    )
    reward_weight: tuple[float, ...] = _opt((), "Weight of each reward; default 1.")
    success: float | None = _opt(
        None,
        "Total reward from which a completion counts as right, where the rewards' most is not the sum of their weights, such as 1 for a "
        "verifier beside a penalty in [-1, 0]; default: that sum.",
    )
    reward_timeout: float = _opt(60.0, "Seconds one reward call may take before its rollouts count as unscorable.")
    temperature: float | None = _opt(None, "Sampling temperature of rollouts; default 1.0.")
    top_p: float = _opt(1.0, "Nucleus sampling mass of rollouts.")
    top_k: int = _opt(0, "Sample among the k likeliest tokens; 0 = all.")
    max_completion_length: int | None = _opt(
        None, "Most tokens per completion; default 256, or what the packaged world needs."
    )
    dtype: str = _opt("auto", "Weights' type: auto, float32, bfloat16 or float16.")
    device: str | None = _opt(None, "Device, such as cpu or cuda:0; default: the first GPU, else the CPU.")
    seed: int = _opt(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        positive = {"size": 1, "max_completion_length": 1, "reward_timeout": 0.001}
        for name, least in positive.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}.")
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; it must be a number of at least 0.")
        if not 0 <= self.seed < 2**32:  # what NumPy's and torch's seeding take
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more and below 2^32.")
        if self.reward_weight and len(self.reward_weight) != len(self.reward):
            raise ConfigError(
                f"{len(self.reward_weight)} reward weights for {len(self.reward)} rewards; give one each."
            )
        if not all(map(math.isfinite, self.reward_weight)):
            raise ConfigError(f"reward_weight is {self.reward_weight}; each must be a finite number.")
        counts = any(weight > 0 or (weight and self.success is not None) for weight in self.reward_weight)
        if self.reward_weight and not counts:
            raise ConfigError(
                f"reward_weight is {self.reward_weight}: no reward would count. Give one a weight above 0."
            )
        if self.success is not None and not math.isfinite(self.success):
            raise ConfigError(f"success is {self.success}; it must be a finite number.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}; it must be at least 1, or 0 to keep every token.")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ProblemSettings):
    """Settings of ``dopr train``."""

    output: str | None = _opt(None, "Run directory; default: runs/ and a time stamp. It must not hold another run.")
    strategy: str = _opt(
        "dopr",
        "Selection strategy: dopr, uniform (plain batch GRPO), random-one, dapo, greso, mopps, ... (docs/strategies.md), "
        "or your own as module:Class.",
    )
    prompts_per_round: int | None = _opt(
        None, "Prompts per update; default: the strategy's, 1 (one-shot) for most, 8 for batch methods."
    )
    group_size: int | None = _opt(None, "Rollouts per group G; default 8.")
    candidates: int | None = _opt(None, "Candidate batch to choose from; default: the smaller of 128 and the pool.")
    chunk: int | None = _opt(
        None,
        "Rollouts generated at a time, until a group's rewards differ; default: 2 for dopr, the group size for others.",
    )
    wrong_cap: int | None = _opt(
        None,
        "Most rollouts of a prompt that keeps failing (a search of dopr goes on to up to three times as many); with --chunk and --right-cap at "
        "the group size: plain groups.",
    )
    right_cap: int | None = _opt(None, "Most rollouts of a prompt that keeps succeeding.")
    replay: int | None = _opt(None, "Verified successes added to each update; 0 = strictly on-policy.")
    replay_updates: int | None = _opt(
        None, "Further updates per round from replayed successes alone, without rollouts; default: the strategy's."
    )
    features: str = _opt(
        "hidden",
        "What a strategy that shares evidence knows of a prompt: hidden (the policy's hidden state), category (the problems' "
        "own, such as a column skill or subject) or none.",
    )
    option: dict[str, Any] = _opt(dict, "Switch of the strategy as NAME=VALUE, such as volatility=within; repeatable.")
    budget: str | None = _opt(
        None, "When to stop: rollouts=N, tokens=N, seconds=N or updates=N; default rollouts=1500 on a world, else 2000."
    )
    learning_rate: float | None = _opt(
        None,
        "Learning rate; default by model size: 2e-4 tiny, 5e-6 below 1B, else 1e-6; LoRA 2e-5; lower for fewer than 32 problems.",
    )
    lora: int = _opt(0, "Rank of a LoRA adapter; 0 = full fine-tuning.")
    micro_batch: int | None = _opt(
        None, "Rows per forward pass and device; default: the whole round. Lower it to save memory."
    )
    eval_data: str | None = _opt(None, "Held-out problems; default: the world's own, or up to a tenth of the data.")
    eval_problems: int | None = _opt(
        None, "Held-out problems used; 0 = no evaluation; default 256 for worlds, else 64."
    )
    eval_samples: int = _opt(1, "Samples per held-out problem.")
    eval_temperature: float | None = _opt(None, "Temperature of evaluation, 0 = greedy; default: that of the rollouts.")
    evaluations: int | None = _opt(
        None, "Evaluations between before and after; default 20 for the tiny policy, else 0."
    )
    target: float | None = _opt(None, "Accuracy at which to stop early.")
    save_every: int = _opt(0, "Checkpoint every so many updates, for --resume; 0 = by the clock alone.")
    save_minutes: float = _opt(10.0, "Checkpoint whenever the last one is so many minutes old; 0 = never.")
    probe: int | None = _opt(
        None,
        "Held-out prompts on which base success and the KL of updates are measured, for dopr bound; 0 = off; default 32 for the tiny policy, else 8.",
    )
    warn_constant: int = _opt(16, "Warn after so many rounds in a row without a mixed group; 0 = never.")
    stop_constant: int = _opt(0, "Stop after so many rounds in a row without a mixed group; 0 = never.")
    stop_unscorable: float = _opt(
        0.9, "Stop when more than this share of the latest rollouts is unscorable; 0 = never."
    )
    trainer: dict[str, Any] = _opt(dict, "Any TRL GRPOConfig field as NAME=VALUE, such as beta=0.01; repeatable.")
    resume: str | None = _opt(None, "Run directory to continue.", flag_only=True)
    force: bool = _opt(
        False,
        "With --resume: go on although data, model or settings changed (not as the whole run would).",
        flag_only=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_overrides(self.trainer)
        if self.budget is not None:
            Budget.parse(self.budget)
        if self.target is not None and not 0 < self.target <= 1:
            raise ConfigError(f"target is {self.target}; an accuracy lies above 0 and at most at 1.")
        if self.temperature == 0:
            raise ConfigError(
                "temperature is 0: all rollouts of a group would be equal. Set it above 0 (1.0 is usual)."
            )
        if self.features not in FEATURES:
            raise ConfigError(f"features is {self.features!r}. {suggest(self.features, FEATURES)}")
        for name in ("lora", "probe", "evaluations", "eval_problems", "save_every", "warn_constant", "stop_constant"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if not 0 <= self.stop_unscorable <= 1:
            raise ConfigError(f"stop_unscorable is {self.stop_unscorable}; it is a share between 0 and 1.")
        if not 0 <= self.save_minutes < float("inf"):
            raise ConfigError(f"save_minutes is {self.save_minutes}; it must be 0 or more.")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be a positive number.")
        if self.eval_samples < 1:
            raise ConfigError(f"eval_samples is {self.eval_samples}; it must be at least 1.")
        if self.eval_temperature is not None and not 0 <= self.eval_temperature < float("inf"):
            raise ConfigError(
                f"eval_temperature is {self.eval_temperature}; it must be 0 (greedy) or a positive number."
            )


@dataclass(frozen=True, kw_only=True)
class CompareSettings(TrainSettings):
    """Settings of ``dopr compare``: those of every run, and how the runs are arranged."""

    strategies: tuple[str, ...] = _opt(
        ("dopr", "uniform", "random-one", "dapo"),
        "Arms: all, or names, comma-separated or repeated; settings of one arm follow a plus, such as "
        "uniform+prompts_per_round=64+budget=rollouts=16000 or dopr+replay=0+option.volatility=within; alternatives "
        "tuned against each other stand between bars, as in prompts_per_round=4|8|16. Default: dopr,uniform,random-one,dapo.",
    )
    world: str | None = _opt(None, "Short for --data world:NAME.")
    seeds: int = _opt(3, "Reported runs per arm, with --seed and those after it; none of them is tuned on.")
    tuning_seeds: int = _opt(1, "Runs per arm and learning rate that only choose the rate; 0 = take the middle one.")
    learning_rates: tuple[float, ...] = _opt(
        (),
        "Learning rate to try for one prompt per round; repeatable. Arms with k prompts per round try it times sqrt(k). "
        "Default for the tiny policy: 5e-5, 1e-4, 2e-4.",
    )
    targets: tuple[float, ...] = _opt(
        (), "Accuracy whose cost is reported; repeatable. Default: half and 90 % of the way the reference arm gets."
    )
    reference: str | None = _opt(
        None, "Arm that the others are compared with; default uniform, else random-one, else the first."
    )
    jobs: int | None = _opt(None, "Runs side by side; default: the number of cores for the tiny policy, else 1.")
    keep_policies: bool = _opt(False, "Keep the trained weights of every run.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("seeds", 1), ("tuning_seeds", 0), ("jobs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}.")
        if any(not 0 < rate < float("inf") for rate in self.learning_rates):
            raise ConfigError(f"learning_rates are {self.learning_rates}; each must be a positive number.")
        if any(not 0 < target <= 1 for target in self.targets):
            raise ConfigError(f"targets are {self.targets}; an accuracy lies above 0 and at most at 1.")
        if self.eval_problems == 0:
            raise ConfigError("eval_problems is 0: without held-out problems there is nothing to compare.")


@dataclass(frozen=True, kw_only=True)
class EvalSettings(ProblemSettings):
    """Settings of ``dopr eval``."""

    run: str | None = _opt(
        None, "Run directory: evaluate its final checkpoint on its held-out problems, as the run did."
    )
    n: int = _opt(1, "Samples per problem.", short="-n")
    k: tuple[int, ...] = _opt((), "pass@k for this k; repeatable; default: powers of two up to n.", short="-k")
    sets: tuple[str, ...] = _opt(
        (),
        "Several problem sets in place of --data: gsm8k, math500, aime24, aime25, amc23, minerva, olympiadbench, or "
        "anything that --data takes; repeatable.",
    )
    data_dir: str | None = _opt(None, "Directory with local copies of the known sets; default: the hub.")
    backend: str = _opt("transformers", "What generates: transformers or vllm.")
    batch_size: int = _opt(64, "Completions generated at once.")
    output: str | None = _opt(
        None,
        "Directory for evaluation.json and completions.jsonl; with the same settings a stopped evaluation goes on.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.backend not in ("transformers", "vllm"):
            raise ConfigError(f"The backend is {self.backend!r}; it must be transformers or vllm.")
