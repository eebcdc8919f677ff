"""``DoPRConfig``: TRL's ``GRPOConfig`` plus the selection settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import GRPOConfig

from dopr.errors import ConfigError, suggest
from dopr.selection.registry import check_strategy, make_options
from dopr.selection.settings import SelectorConfig

#: Fields that TRL 1.16 looks at only once it trains, and what it knows of them.
_CHOICES = {
    "loss_type": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}


@dataclass
class DoPRConfig(GRPOConfig):
    """Configuration of ``DoPRTrainer``; every ``GRPOConfig`` field keeps its meaning.

    One round chooses ``generation_batch_size // num_generations`` prompts. With the defaults (8 rows per device, 8
    generations, one device) that is one prompt per update: the one-shot setting.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*GRPOConfig._VALID_DICT_FIELDS, "dopr_options"]

    dopr_strategy: str = field(
        default="dopr",
        metadata={
            "help": "Selection strategy: a preset (docs/strategies.md) such as dopr, uniform or random-one, or module:Class."
        },
    )
    dopr_candidates: int | None = field(
        default=None, metadata={"help": "Candidate batch to choose from; default: the smaller of 128 and the pool."}
    )
    dopr_chunk: int | None = field(
        default=None,
        metadata={"help": "Rollouts generated at a time, until a group's rewards differ. Default: the strategy's."},
    )
    dopr_wrong_cap: int | None = field(
        default=None,
        metadata={
            "help": "Most rollouts of a prompt that keeps failing (a search of dopr goes on to up to three times as many); with dopr_chunk and "
            "dopr_right_cap at num_generations: plain groups. Default: the strategy's."
        },
    )
    dopr_right_cap: int | None = field(
        default=None, metadata={"help": "Most rollouts of a prompt that keeps succeeding. Default: the strategy's."}
    )
    dopr_replay: int | None = field(
        default=None,
        metadata={"help": "Verified successes added to each update; 0 = on-policy only. Default: the strategy's."},
    )
    dopr_replay_updates: int | None = field(
        default=None,
        metadata={
            "help": "Further updates per round from replayed rows alone, without rollouts. Default: the strategy's."
        },
    )
    dopr_memory: int = field(default=64, metadata={"help": "Verified successes kept for replay."})
    dopr_replay_weight: float = field(default=1.0, metadata={"help": "Advantage given to replayed successes."})
    dopr_success: float | None = field(
        default=None,
        metadata={
            "help": "Total reward from which a rollout counts as verified, for rewards whose most is not the sum of their weights, such as "
            "0 for penalties in [-1, 0]; default: that sum."
        },
    )
    dopr_features: str = field(
        default="hidden",
        metadata={
            "help": "Prompt features for strategies that share evidence: hidden (base policy's last hidden state, one forward per prompt, once) or none."
        },
    )
    dopr_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Switches of the strategy, such as {'volatility': 'within'}; see its Options."}
    )
    dopr_id_column: str = field(
        default="id", metadata={"help": "Dataset column with stable prompt ids; absent = a hash of the prompt."}
    )
    dopr_category_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with each prompt's category, for sec and dump; default: category, skill, subject, topic, type or data_source."
        },
    )
    dopr_difficulty_column: str | None = field(
        default=None,
        metadata={"help": "Column with each prompt's difficulty, for adarft; default: difficulty or level."},
    )
    dopr_events: str | None = field(
        default=None, metadata={"help": "Path of the round log; default: events.jsonl in the output directory."}
    )
    dopr_warn_constant: int = field(
        default=16, metadata={"help": "Warn after this many rounds in a row without a single mixed group; 0 = never."}
    )
    dopr_stop_constant: int = field(
        default=0, metadata={"help": "Stop after this many rounds in a row without a single mixed group; 0 = never."}
    )

    dopr_probe: int = field(
        default=0,
        metadata={"help": "Prompts on which the KL of updates is measured, for dopr bound (docs/theory.md); 0 = off."},
    )
    dopr_probe_every: int = field(default=16, metadata={"help": "Measure one update in so many."})
    dopr_stop_unscorable: float = field(
        default=0.9,
        metadata={"help": "Stop when more than this share of the latest rollouts could not be scored; 0 = never."},
    )
    dopr_stop_skipped: int = field(
        default=5,
        metadata={
            "help": "Stop when so many of the last twice as many updates had a broken loss or gradient; 0 = never."
        },
    )
    dopr_force_resume: bool = field(
        default=False, metadata={"help": "Resume although data, model or settings differ from the checkpoint's."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:  # TRL would notice while it trains
                raise ConfigError(f"{name} is {value!r}. {suggest(str(value), known)}")
        if self.dopr_features not in ("hidden", "none"):
            raise ConfigError(f"dopr_features is {self.dopr_features!r}; use 'hidden' or 'none'.")
        if isinstance(self.dopr_options, str):
            raise ConfigError(
                f'dopr_options must be a mapping; got the text {self.dopr_options!r}. Give JSON like {{"ucb": 0.1}}.'
            )
        if self.dopr_probe < 0 or self.dopr_probe_every < 1:
            raise ConfigError(
                f"dopr_probe is {self.dopr_probe} and dopr_probe_every {self.dopr_probe_every}; use 0 or more prompts, every 1 or "
                "more updates."
            )
        strategy = check_strategy(self.dopr_strategy)
        make_options(strategy, self.options)
        if not 0 <= self.dopr_stop_unscorable <= 1:
            raise ConfigError(f"dopr_stop_unscorable is {self.dopr_stop_unscorable}; it is a share between 0 and 1.")
        strategy.rollouts_of(self.selector_config())  # reject impossible values before any model is loaded
        replayed = strategy.default_replay if self.dopr_replay is None else self.dopr_replay
        if self.dopr_memory < replayed:
            raise ConfigError(
                f"dopr_memory is {self.dopr_memory}, so there would never be the {replayed} successes that a replay update takes. Make it at "
                f"least {replayed}, or lower dopr_replay."
            )

    @property
    def options(self) -> dict[str, Any]:
        """The strategy's switches."""
        return dict(self.dopr_options) if isinstance(self.dopr_options, dict) else {}

    @property
    def prompts_per_round(self) -> int:
        """Prompts chosen per round."""
        return int(self.generation_batch_size // self.num_generations)

    def selector_config(self) -> SelectorConfig:
        """The part of the configuration that the selection core needs."""
        return SelectorConfig(
            group_size=self.num_generations,
            prompts_per_round=self.prompts_per_round,
            candidates=self.dopr_candidates,
            chunk=self.dopr_chunk,
            wrong_cap=self.dopr_wrong_cap,
            right_cap=self.dopr_right_cap,
            replay=self.dopr_replay,
            replay_updates=self.dopr_replay_updates,
            memory=self.dopr_memory,
            seed=self.seed,
        )
