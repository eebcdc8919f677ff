"""Group-relative advantages over groups of any size.

TRL computes them for groups of exactly ``num_generations``. A sequential group is the union of several such chunks, so
its advantages are computed again here, with TRL's conventions: Bessel-corrected deviation plus 1e-4, NaN = unscorable,
advantage 0 for rows nothing could score.
"""

from __future__ import annotations

import torch

_EPS = 1e-4


def total_reward(rewards_per_func: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum over reward functions, shape (R,); NaN where no function could score the row.

    Args:
        rewards_per_func: Shape (R, F), NaN = this function could not score this row.
        weights: Shape (F,).
    """
    total = (rewards_per_func * weights.to(rewards_per_func.device)).nansum(dim=1)
    total[torch.isnan(rewards_per_func).all(dim=1)] = torch.nan
    return total


def group_totals(rewards_per_func: torch.Tensor, groups: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Total rewards of shape (R,) that can be compared between prompts which different functions score.

    A function that scored no rollout of a group (one of another task) could not have added anything: the group's totals are raised
    to what all functions together can give. Where every function scored something these are ``total_reward``'s.

    Args:
        rewards_per_func: Shape (R, F), NaN = this function could not score this row.
        groups: Group number of each row, shape (R,).
        weights: Shape (F,).
    """
    totals = total_reward(rewards_per_func, weights)
    if not torch.isnan(rewards_per_func).any():
        return totals
    most = weights.to(rewards_per_func.device).clamp(min=0)
    for g in groups.unique():
        rows = groups == g
        could = most[~torch.isnan(rewards_per_func[rows]).all(dim=0)].sum()
        if 0 < could < most.sum():
            totals[rows] *= most.sum() / could
    return totals


def _std(values: torch.Tensor) -> torch.Tensor:
    """Bessel-corrected standard deviation without NaNs; 0 for fewer than two values."""
    values = values[~torch.isnan(values)]
    return values.std() if values.numel() > 1 else values.new_zeros(())


def group_advantages(
    rewards_per_func: torch.Tensor, groups: torch.Tensor, weights: torch.Tensor, *, scale: str, aggregation: str
) -> torch.Tensor:
    """Advantages of shape (R,).

    Args:
        rewards_per_func: Shape (R, F).
        groups: Group number of each row, shape (R,).
        weights: Weight of each reward function, shape (F,).
        scale: ``group``, ``batch`` or ``none`` (GRPOConfig.scale_rewards).
        aggregation: ``sum_then_normalize`` or ``normalize_then_sum``.
    """
    weights = weights.to(rewards_per_func.device)
    if aggregation == "normalize_then_sum":
        normalized = torch.empty_like(rewards_per_func)
        for g in groups.unique():
            rows = groups == g
            for f in range(rewards_per_func.shape[1]):
                column = rewards_per_func[rows, f]
                normalized[rows, f] = (column - column.nanmean()) / (_std(column) + _EPS)
        total = total_reward(normalized, weights)
        return torch.nan_to_num((total - total.nanmean()) / (_std(total) + _EPS), nan=0.0)
    total = total_reward(rewards_per_func, weights)
    advantages = torch.empty_like(total)
    for g in groups.unique():
        rows = groups == g
        centred = total[rows] - total[rows].nanmean()
        advantages[rows] = centred / (_std(total[rows]) + _EPS) if scale == "group" else centred
    if scale == "batch":
        advantages = advantages / (_std(total) + _EPS)
    return torch.nan_to_num(advantages, nan=0.0)
