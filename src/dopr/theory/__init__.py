"""Lower bounds: how few samples, updates and rollouts can possibly suffice. Statements and proofs: docs/theory.md.

Pure functions on numbers and arrays, NumPy only. Divergences in nats, counts in groups, rollouts, updates or instances
as each says. They raise ``ValueError`` at the edge of their domain.
"""

from dopr.theory.divergence import capacity, entropy, kl, reachable
from dopr.theory.first_signal import (
    SelectionCeiling,
    first_signal_groups,
    first_signal_rollouts,
    mixed_probability,
    selection_ceiling,
)

__all__ = [
    "SelectionCeiling",
    "capacity",
    "entropy",
    "first_signal_groups",
    "first_signal_rollouts",
    "kl",
    "mixed_probability",
    "reachable",
    "selection_ceiling",
]
