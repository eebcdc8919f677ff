"""Which problems taught, judged afterwards from a trace: offline rankings for small training sets. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError, suggest
from dopr.trace import Trace, Visit

Scores = dict[str, float]


def historical_std(trace: Trace) -> Scores:
    """Standard deviation of a prompt's accuracy over its visits: 1-shot RLVR's ranking (arXiv 2504.20571).

    Of prompts with at least two visits; one has no deviation.
    """
    return {i: float(np.std([v.rate for v in trace.visits[i]])) for i in _revisited(trace)}


def mean_variance(trace: Trace) -> Scores:
    """Mean of p (1 - p) over a prompt's visits: how informative its groups were on average."""
    return {i: float(np.mean([v.rate * (1 - v.rate) for v in visits])) for i, visits in trace.visits.items()}


def limr(trace: Trace) -> Scores:
    """Alignment with the mean learning curve, 1 - sum (a_t - m_t)^2 / sum (1 - m_t)^2: LIMR (arXiv 2502.11886), at most 1.

    The visits of a prompt are put on the time grid of the longest series, nearest in time; m is the mean over prompts. One
    visit is no curve: prompts with at least two count. The authors keep prompts that score 0.6 or more.
    """
    ids = _revisited(trace)
    rates = trace.rates(trace.longest)[:, [len(visits) > 1 for visits in trace.visits.values()]]
    mean: NDArray[np.float64] = rates.mean(axis=1, keepdims=True)
    room = float(((1 - mean) ** 2).sum())
    scores = 1 - ((rates - mean) ** 2).sum(axis=0) / (room if room > 0 else 1.0)
    return dict(zip(ids, map(float, scores), strict=True))


def _revisited(trace: Trace) -> list[str]:
    """Prompts with at least two visits.

    Raises:
        ConfigError: There are none.
    """
    if ids := [i for i, visits in trace.visits.items() if len(visits) > 1]:
        return ids
    raise ConfigError(
        f"Every prompt of {trace.source} was visited once, so nothing is known of how its success changed. Rank by variance."
    )


def disagreement(trace: Trace) -> Scores:
    """Mean chance that two rollouts of a group answered differently.

    Raises:
        ConfigError: The trace does not say what the rollouts answered.
    """
    return {i: float(np.mean([_known(v, trace) for v in visits])) for i, visits in trace.visits.items()}


def _known(visit: Visit, trace: Trace) -> float:
    if visit.disagreement is None:
        raise ConfigError(
            f"{trace.source} does not say what the rollouts answered, so disagreement is unknown. Rank by std, limr or "
            "variance, or use the directory of a dopr run."
        )
    return visit.disagreement


RANKINGS: Mapping[str, Callable[[Trace], Scores]] = {
    "std": historical_std,
    "limr": limr,
    "variance": mean_variance,
    "disagreement": disagreement,
}


def rank(trace: Trace, by: str) -> list[tuple[str, float]]:
    """Prompt ids with their scores, best first; ties in the order of the trace.

    ``std`` and ``limr`` rank the prompts with at least two visits alone.

    Raises:
        ConfigError: Unknown ranking, or one that the trace cannot support.
    """
    if by not in RANKINGS:
        raise ConfigError(f"There is no ranking {by!r}. {suggest(by, RANKINGS)}")
    scores = RANKINGS[by](trace)
    return sorted(scores.items(), key=lambda item: -item[1])
