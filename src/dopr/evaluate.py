"""Measure a policy on problems: roll out, verify, and summarise with intervals over problems."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError, DataError, RewardError
from dopr.generation import Completion, Progress, Prompt, Sampling, generate
from dopr.metrics import (
    SUCCESS_THRESHOLD,
    Interval,
    avg_at_n,
    maj_at_n,
    mean_interval,
    pass_at_k,
    success_matrix,
)
from dopr.policy import load_policy
from dopr.runlog import write_lines

__all__ = ["Completion", "Evaluation", "Reward", "Sampling", "evaluate", "generate", "load_policy"]

Reward = Callable[..., Sequence[float | None]]
"""TRL's signature: ``reward(prompts=, completions=, completion_ids=, **columns) -> list[float | None]``."""

_CHUNK = 64  # completions per reward call, about what a training step passes, so that time limits mean the same


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The rollouts of P problems with n samples each, and their rewards."""

    ids: list[str]
    """Problem ids, length P."""
    golds: list[Any]
    """Gold answers, length P; None where the verifier needs none."""
    skills: list[str | None]
    """The problems' skill labels, length P; None where there is none."""
    completions: list[list[Completion]]
    """Rollouts, (P, n)."""
    rewards: list[list[float | None]]
    """Rewards, (P, n); None is unscorable."""
    extracted: list[list[str | None]]
    """The answer read from each completion for the majority vote, (P, n); None where none was found."""
    sampling: Sampling
    """How the completions were drawn."""
    threshold: float = SUCCESS_THRESHOLD
    """A reward of at least this is a success."""
    seconds: float = 0.0
    """Wall time of generation and verification."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Successes, bool (P, n). An unscorable sample is no success."""
        return success_matrix(self.rewards, self.threshold)

    @property
    def tokens(self) -> int:
        """Generated tokens in all, stop tokens included."""
        return sum(completion.n_tokens for row in self.completions for completion in row)

    @property
    def accuracy(self) -> Interval:
        """Mean success over problems: greedy accuracy, or avg@n for samples."""
        return mean_interval(avg_at_n(self.correct), rng=self._rng())

    @property
    def by_skill(self) -> dict[str, float]:
        """Mean success of each skill, sorted by name; empty if the problems carry none."""
        per_problem = avg_at_n(self.correct)
        names = sorted({skill for skill in self.skills if skill is not None})
        return {
            name: float(np.mean([v for v, s in zip(per_problem, self.skills, strict=True) if s == name]))
            for name in names
        }

    def summary(self, k: Sequence[int] | None = None) -> dict[str, Any]:
        """Numbers of this evaluation, ready for JSON.

        ``metrics`` maps ``greedy`` or ``avg@n``, ``pass@k`` and ``maj@n`` to estimate, low and high: a 95 % interval
        over problems, Wilson's where every problem's value is 0 or 1, else the bootstrap.

        Args:
            k: tries for pass@k, each at most n; None takes the powers of two up to n, and n.

        Raises:
            ConfigError: a k below 1 or above n.
        """
        correct, n = self.correct, self.sampling.n
        metrics = {"greedy" if self.sampling.greedy else f"avg@{n}": self.accuracy}
        for value in tries(k, n):
            metrics[f"pass@{value}"] = mean_interval(pass_at_k(n, correct.sum(axis=1), value), rng=self._rng())
        if n > 1:
            votes = [maj_at_n(answers, list(row)) for answers, row in zip(self.extracted, correct, strict=True)]
            metrics[f"maj@{n}"] = mean_interval(votes, rng=self._rng())
        samples = [completion for row in self.completions for completion in row]
        return {
            "problems": len(self.ids),
            "samples_per_problem": n,
            "metrics": {name: asdict(interval) for name, interval in metrics.items()},
            "by_skill": self.by_skill,
            "tokens": self.tokens,
            "mean_tokens": self.tokens / len(samples),
            "truncated_share": sum(completion.truncated for completion in samples) / len(samples),
            "unscorable": sum(reward is None for row in self.rewards for reward in row),
            "threshold": self.threshold,
            "sampling": asdict(self.sampling),
            "seconds": round(self.seconds, 3),
        }

    def write(self, directory: str | Path, k: Sequence[int] | None = None) -> Path:
        """Write evaluation.json (the summary) and completions.jsonl (one line per problem); return the former's path.

        Each file appears whole or not at all.
        """
        summary = json.dumps(self.summary(k), indent=2, allow_nan=False)
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(folder / "completions.jsonl", list(self._lines()))
        write_lines(folder / "evaluation.json", [summary])
        return folder / "evaluation.json"

    def _lines(self) -> Iterable[str]:
        columns = zip(self.ids, self.golds, self.skills, self.completions, self.rewards, self.extracted, strict=True)
        for identity, gold, skill, completions, rewards, extracted in columns:
            record = {
                "id": identity,
                "answer": gold,
                "skill": skill,
                "completions": [completion.text for completion in completions],
                "extracted": extracted,
                "rewards": rewards,
                "tokens": [completion.n_tokens for completion in completions],
                "truncated": [completion.truncated for completion in completions],
            }
            yield json.dumps(record, default=str)

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.sampling.seed)


def tries(k: Sequence[int] | None, n: int) -> list[int]:
    """The k of pass@k to report with ``n`` samples per problem: those asked for, or the powers of two up to n, and n.

    Raises:
        ConfigError: a k below 1 or above n.
    """
    if k is None:
        return sorted({2**i for i in range(1, n.bit_length())} | ({n} if n > 1 else set()))
    if min(k, default=1) < 1:
        raise ConfigError(f"pass@k needs a k of at least 1; got {min(k)}.")
    if bad := [value for value in k if value > n]:
        raise ConfigError(
            f"pass@{bad[0]} cannot be measured with {n} sample{'s' * (n > 1)} per problem. "
            f"Draw at least {max(bad)} samples, or ask for k between 1 and {n}."
        )
    return sorted(set(k))


def evaluate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    reward: Reward,
    *,
    sampling: Sampling,
    threshold: float = SUCCESS_THRESHOLD,
    progress: Progress | None = None,
) -> Evaluation:
    """Roll out every problem and verify every completion.

    Args:
        model: a transformers causal language model on its device; unwrapped, if it is in training. It is left as found.
        tokenizer: its tokenizer.
        rows: P problems as :func:`dopr.tasks.problems.to_rows` gives them: ``prompt`` (text or chat messages), ``id``,
            ``answer``, perhaps ``skill``, and whatever other columns the reward reads.
        reward: a reward function in TRL's signature. It is called with every column of the rows but ``prompt``, as in
            training. Its attribute ``extract(text) -> str | None``, if it is there and not None, reads the answer for maj@n; else
            the stripped text is the answer.
        sampling: how completions are drawn.
        threshold: a reward of at least this is a success.
        progress: told (rollouts done, rollouts in all) after every batch.

    Raises:
        DataError: no rows, or a row without prompt.
        RewardError: the reward does not return one number or None per completion.
    """
    if not rows:
        raise DataError("There is nothing to evaluate: the set of problems is empty.")
    missing = [i for i, row in enumerate(rows, start=1) if "prompt" not in row]
    if missing:
        raise DataError(
            f"Row {missing[0]} has no prompt; it has {', '.join(map(str, rows[missing[0] - 1])) or 'no column'}."
        )
    started = time.perf_counter()
    prompts: list[Prompt] = [row["prompt"] for row in rows]
    completions = generate(model, tokenizer, prompts, sampling, progress=progress)
    rewards, extracted = judge(rows, completions, reward)
    return Evaluation(
        ids=[str(row.get("id", i)) for i, row in enumerate(rows)],
        golds=[row.get("answer") for row in rows],
        skills=[None if row.get("skill") is None else str(row["skill"]) for row in rows],
        completions=completions,
        rewards=rewards,
        extracted=extracted,
        sampling=sampling,
        threshold=threshold,
        seconds=time.perf_counter() - started,
    )


def judge(
    rows: Sequence[Mapping[str, Any]], completions: Sequence[Sequence[Completion]], reward: Reward
) -> tuple[list[list[float | None]], list[list[str | None]]]:
    """Rewards of P problems' n completions each, and the answers read from them: both (P, n).

    Raises:
        RewardError: the reward does not return one number or None per completion.
    """
    extract = getattr(reward, "extract", None) or str.strip
    answers = [[extract(completion.text) or None for completion in row] for row in completions]
    return _verify(rows, completions, reward), answers


def _verify(
    rows: Sequence[Mapping[str, Any]], completions: Sequence[Sequence[Completion]], reward: Reward
) -> list[list[float | None]]:
    """Rewards (P, n), asked for in calls of whole problems and about ``_CHUNK`` completions."""
    n = len(completions[0])
    names = sorted({name for row in rows for name in row} - {"prompt", "completion", "completion_ids"})
    rewards: list[list[float | None]] = []
    for start in range(0, len(rows), max(1, _CHUNK // n)):
        part = slice(start, start + max(1, _CHUNK // n))
        repeated = [row for row in rows[part] for _ in range(n)]
        samples = [completion for group in completions[part] for completion in group]
        values = reward(
            prompts=[row["prompt"] for row in repeated],
            completions=[
                sample.text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": sample.text}]
                for row, sample in zip(repeated, samples, strict=True)
            ],
            completion_ids=[list(sample.token_ids) for sample in samples],
            **{name: [row.get(name) for row in repeated] for name in names},
        )
        scores = _scores(values, len(samples), getattr(reward, "__name__", type(reward).__name__))
        rewards.extend(scores[i : i + n] for i in range(0, len(scores), n))
    return rewards


def _scores(values: Any, expected: int, name: str) -> list[float | None]:
    try:
        scores = [None if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise RewardError(
            f"The reward function {name!r} must return a list with a number or None for each completion; "
            f"it returned {type(values).__name__}: {str(values)[:80]}."
        ) from error
    if len(scores) != expected:
        raise RewardError(
            f"The reward function {name!r} returned {len(scores)} rewards for {expected} completions. "
            "It must return exactly one per completion, None where it cannot tell."
        )
    return [score if score is not None and np.isfinite(score) else None for score in scores]
