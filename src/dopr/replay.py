"""Strategies on a recorded trace: what each would have picked, without a model. NumPy only.

The policy is taken to improve as it did in the recording, whatever is picked; so a replay shows how well a strategy finds
informative prompts and predicts success, not what it would have taught. Time is the share of the rollout budget that is
spent; a prompt picked at some time gets the rewards of its recorded visit nearest to that time, in random order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.metrics import Interval, over_seeds
from dopr.selection.registry import check_strategy, make_selector
from dopr.selection.selector import Selector
from dopr.selection.settings import SelectorConfig
from dopr.trace import Trace

#: Edges of the reliability curve.
BINS = np.linspace(0, 1, 11)


@dataclass(frozen=True, kw_only=True)
class ReplayRun:
    """One strategy, one seed.

    Attributes:
        rollouts: Rollouts spent, dropped ones included.
        groups: Groups rolled out.
        mixed: Groups with differing rewards, dropped ones included.
        all_wrong: Groups of failures alone.
        all_right: Groups of successes alone.
        coverage: Share of the prompts that were picked.
        brier: Mean (predicted - reward)^2 over rollouts; NaN where the strategy predicts nothing.
        brier_pooled: The same for the running mean of all rewards so far, on the same rollouts.
        reliability: Per bin of the prediction: rollouts, their mean prediction, their mean reward; shape (10, 3).
    """

    rollouts: int
    groups: int
    mixed: int
    all_wrong: int
    all_right: int
    coverage: float
    brier: float
    brier_pooled: float
    reliability: NDArray[np.float64]

    @property
    def per_hundred(self) -> float:
        """Informative groups per hundred rollouts."""
        return 100 * self.mixed / self.rollouts

    @property
    def informative(self) -> float:
        """Share of informative groups among all rolled out."""
        return self.mixed / self.groups


def replay(
    trace: Trace, strategy: str, *, seed: int = 0, rollouts: int = 4000, group_size: int | None = None,
    prompts_per_round: int | None = None, candidates: int | None = None,
) -> ReplayRun:  # fmt: skip
    """Run one strategy against a trace.

    Rollouts are those of the recorded group in random order; beyond its size they are drawn at the rate (successes + 1/2) /
    (size + 1), so that a group recorded as constant can still turn out mixed when more is asked of it.

    Args:
        trace: The recording.
        strategy: A preset's name or ``module:Class``.
        seed: Of the strategy and of the order of rewards.
        rollouts: Budget.
        group_size: Rollouts per group; default that of the trace.
        prompts_per_round: Default the strategy's.
        candidates: Candidate batch; default the smaller of 128 and the pool.

    Raises:
        ConfigError: A strategy or setting that cannot be.
    """
    cls = check_strategy(strategy)
    size = trace.group_size if group_size is None else group_size
    k = min(cls.default_prompts_per_round, len(trace.ids)) if prompts_per_round is None else prompts_per_round
    config = SelectorConfig(group_size=size, prompts_per_round=k, candidates=candidates, seed=seed)
    selector = make_selector(strategy, trace.ids, config)
    selector.set_metadata(metadata_of_trace(trace))
    return _Replay(trace, selector, rollouts, seed).run()


def metadata_of_trace(trace: Trace) -> dict[str, list[object]]:
    """Difficulty and category for the strategies that need them.

    Difficulty is 1 - success rate of the first visit, as AdaRFT measures it with a reference model; the rollouts it took are
    not counted. Categories are those of the run, else fifths of the difficulty, as SEC's difficulty levels.
    """
    first = np.array([visits[0].rate for visits in trace.visits.values()])
    order = np.argsort(np.argsort(-first, kind="stable"), kind="stable")
    fifths = [f"fifth {1 + 5 * int(place) // len(first)}" for place in order]
    named = [trace.categories[i] for i in trace.ids] if trace.categories else fifths
    return {"difficulty": [float(1 - rate) for rate in first], "category": list(named)}


def moments_of(trace: Trace) -> int:
    """How many moments a replay tells apart."""
    return min(4 * trace.longest, 400)


def mixed_share(trace: Trace, group_size: int) -> NDArray[np.float64]:
    """Probability that a whole group, drawn as a replay draws it, is mixed; shape (moments, prompts).

    Out of ``size`` recorded rollouts with ``right`` successes: hypergeometric up to the recorded size, the smoothed rate beyond.
    """
    right, sizes = trace.groups(moments_of(trace))
    groups = list(zip(right.ravel().tolist(), sizes.ravel().tolist(), strict=True))
    chance = {group: _mixed(*group, group_size) for group in set(groups)}
    return np.array([chance[group] for group in groups]).reshape(right.shape)


def _mixed(right: int, size: int, drawn: int) -> float:
    wrong, inside = size - right, min(drawn, size)
    smoothed = _smoothed(right, size)
    all_right = math.comb(right, inside) / math.comb(size, inside) * smoothed ** (drawn - inside)
    all_wrong = math.comb(wrong, inside) / math.comb(size, inside) * (1 - smoothed) ** (drawn - inside)
    return 1 - all_right - all_wrong


def _smoothed(right: int, size: int) -> float:
    return (right + 0.5) / (size + 1)


class _Replay:
    """The loop, with its running totals."""

    def __init__(self, trace: Trace, selector: Selector, budget: int, seed: int) -> None:
        self.right, self.sizes = trace.groups(moments_of(trace))
        self.selector, self.budget = selector, budget
        self.rng = np.random.default_rng([seed, 0x2E])
        self.spent = self.groups = self.mixed = self.all_wrong = self.all_right = 0
        self.squares = np.zeros(3)  # rollouts with a prediction, its squared error, the pooled mean's squared error
        self.pooled = np.array([1.0, 2.0])  # successes and rollouts, from one of each
        self.bins = np.zeros((len(BINS) - 1, 3))
        self.seen = np.zeros(len(trace.ids), bool)

    def run(self) -> ReplayRun:
        while self.spent < self.budget:
            self._round()
        n, own, pooled = self.squares
        nan = float("nan")
        return ReplayRun(
            rollouts=self.spent, groups=self.groups, mixed=self.mixed, all_wrong=self.all_wrong,
            all_right=self.all_right, coverage=float(self.seen.mean()), brier=own / n if n else nan,
            brier_pooled=pooled / n if n else nan, reliability=self.bins,
        )  # fmt: skip

    def _round(self) -> None:
        moment = min(int(self.spent / self.budget * len(self.sizes)), len(self.sizes) - 1)
        picks, done, kept = self.selector.ask(), set[int](), 0
        wanted = len(picks)
        told: list[tuple[str, list[float]]] = []
        for refill in range(self.selector.max_refills + 1):
            for pick in picks:
                rewards, action = self._roll_out(pick.prompt_id, moment, pick.row, pick.rollouts)
                self._count(rewards, pick.predicted)
                told.append((pick.prompt_id, rewards))
                done.add(pick.row)
                kept += action == "keep"
            if kept >= wanted or refill == self.selector.max_refills:
                break
            if not (picks := self.selector.ask(exclude=done)):
                break
        for prompt_id, rewards in told:
            self.selector.tell(prompt_id, rewards)
        self.seen[list(done)] = True

    def _roll_out(self, prompt_id: str, moment: int, row: int, n: int) -> tuple[list[float], str]:
        recorded, size = self.right[moment, row], self.sizes[moment, row]
        urn = self.rng.permutation(np.arange(size) < recorded).astype(float).tolist()
        more, action, drawn = n, "keep", 0
        while more:
            drawn += more
            if drawn > len(urn):
                urn += (self.rng.random(drawn - len(urn)) < _smoothed(recorded, size)).astype(float).tolist()
            verdict = self.selector.review(prompt_id, urn[:drawn])
            if verdict.search:  # a record has no completions to leave out
                verdict = self.selector.rollouts.review(urn[:drawn], self.selector.scale.high)
            more, action = verdict.rollouts, verdict.action
        return urn[:drawn], action

    def _count(self, rewards: list[float], predicted: float | None) -> None:
        n, right = len(rewards), sum(rewards)
        self.spent += n
        self.groups += 1
        self.mixed += 0 < right < n
        self.all_wrong += right == 0
        self.all_right += right == n
        if predicted is not None:
            guess = self.pooled[0] / self.pooled[1]
            self.squares += (n, right * (1 - predicted) ** 2 + (n - right) * predicted**2,
                             right * (1 - guess) ** 2 + (n - right) * guess**2)  # fmt: skip
            self.bins[min(int(predicted * len(self.bins)), len(self.bins) - 1)] += (n, n * predicted, right)
        self.pooled += (right, n)


@dataclass(frozen=True, kw_only=True)
class ReplayRow:
    """One strategy over all seeds; intervals are 95 % Student's t over seeds, and with one seed hold everything possible.

    Attributes:
        strategy: Its name.
        per_hundred: Informative groups per hundred rollouts.
        gain: The same relative to one random prompt, seed by seed.
        informative: Share of informative groups among all rolled out.
        all_wrong: Share of all-wrong groups.
        all_right: Share of all-right groups.
        coverage: Share of the prompts that were picked.
        brier: Brier score of the predicted success; ``None`` where nothing is predicted.
        brier_pooled: That of the running mean on the same rollouts.
        calibration_error: Mean |predicted - observed| over bins, weighted by rollouts; ``None`` as above.
        reliability: Summed over seeds, as in ``ReplayRun``.
    """

    strategy: str
    per_hundred: Interval
    gain: Interval
    informative: float
    all_wrong: float
    all_right: float
    coverage: float
    brier: float | None
    brier_pooled: float | None
    calibration_error: float | None
    reliability: NDArray[np.float64]


def replay_row(strategy: str, runs: Sequence[ReplayRun], control: Sequence[ReplayRun]) -> ReplayRow:
    """Summary of a strategy's runs beside those of one random prompt, at the same seeds."""
    if len(runs) != len(control) or not runs:
        raise ConfigError(f"{len(runs)} runs and {len(control)} of the control; both need the same seeds.")
    bins = np.sum([r.reliability for r in runs], axis=0)
    filled = bins[:, 0] > 0
    error = float(np.abs(bins[filled, 1] - bins[filled, 2]).sum() / bins[:, 0].sum()) if filled.any() else None

    def mean(values: Sequence[float]) -> float | None:
        return None if np.isnan(values).any() else float(np.mean(values))

    return ReplayRow(
        strategy=strategy,
        per_hundred=over_seeds([r.per_hundred for r in runs], least=0.0, most=50.0),  # a mixed group takes two
        gain=_gain([a.per_hundred / b.per_hundred if b.per_hundred else np.nan for a, b in zip(runs, control, strict=True)]),
        informative=float(np.mean([r.informative for r in runs])),
        all_wrong=float(np.mean([r.all_wrong / r.groups for r in runs])),
        all_right=float(np.mean([r.all_right / r.groups for r in runs])),
        coverage=float(np.mean([r.coverage for r in runs])),
        brier=mean([r.brier for r in runs]),
        brier_pooled=mean([r.brier_pooled for r in runs]),
        calibration_error=error,
        reliability=bins,
    )  # fmt: skip


def _gain(values: Sequence[float]) -> Interval:
    if not np.isfinite(values).all():  # a control that found nothing
        return Interval(float("nan"), float("nan"), float("nan"))
    return over_seeds(values, least=0.0, most=math.inf)
