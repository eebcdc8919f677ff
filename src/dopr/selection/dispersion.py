"""How much the success rates of prompts scatter around the rate of their cluster."""

from __future__ import annotations

import numpy as np

from dopr.selection.history import Floats, Group


class Dispersion:
    """Running sums from which the concentration of prompts around their cluster is read, by the method of moments.

    In a beta-binomial the variance of group rates around their mean m is m (1 - m) (1/n + (1 - 1/n) rho) with
    rho = 1 / (1 + concentration).

    Attributes:
        sums: What group rates scatter beyond the 1/n of sampling, and what they would at rho = 1; shape (2,). The prior
            is worth two groups at concentration 2.
    """

    def __init__(self) -> None:
        self.sums: Floats = np.array([2 * 0.25 / 3, 2 * 0.25])

    @property
    def concentration(self) -> float:
        """How alike prompts of one cluster are, as pseudo-rollouts of the cluster rate on a prompt (1/3 to 64)."""
        excess, scale = self.sums
        rho = float(np.clip(excess / scale, 1 / 65, 3 / 4))
        return 1 / rho - 1

    def learn(self, group: Group, successes: float, failures: float) -> None:
        """From a group on a cluster with these counts before it; nothing from a single rollout."""
        if group.n < 2:
            return
        m = (successes + 0.5) / (successes + failures + 1)
        variance = m * (1 - m)
        excess = (group.rate - m) ** 2 - variance / group.n
        self.sums = 0.98 * self.sums + np.array([excess, variance * (1 - 1 / group.n)])
        self.sums = np.maximum(self.sums, [0.0, 1e-6])
