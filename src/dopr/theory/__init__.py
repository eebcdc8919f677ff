"""Lower bounds: how few samples, updates and rollouts can possibly suffice. Statements and proofs: docs/theory.md.

Pure functions on numbers and arrays, NumPy only. Divergences in nats, counts in groups, rollouts, updates or problems
as each says. They raise ``ValueError`` at the edge of their domain.
"""

from dopr.theory.bounds import Bound, LowerBounds, lower_bound
from dopr.theory.coverage import coverage_all, coverage_instances, coverage_of_pool
from dopr.theory.divergence import capacity, entropy, kl, reachable
from dopr.theory.elicit import Elicitation, elicitation_floor
from dopr.theory.first_signal import (
    SelectionCeiling,
    first_signal_groups,
    first_signal_rollouts,
    mixed_probability,
    selection_ceiling,
)
from dopr.theory.identify import (
    drawn_rollouts,
    identification_information,
    identification_rollouts,
    propensity_rollouts,
    trial_rollouts,
)
from dopr.theory.travel import profile_updates, total_divergence, travel_updates

__all__ = [
    "Bound",
    "Elicitation",
    "LowerBounds",
    "SelectionCeiling",
    "capacity",
    "coverage_all",
    "coverage_instances",
    "coverage_of_pool",
    "drawn_rollouts",
    "elicitation_floor",
    "entropy",
    "first_signal_groups",
    "first_signal_rollouts",
    "identification_information",
    "identification_rollouts",
    "kl",
    "lower_bound",
    "mixed_probability",
    "profile_updates",
    "propensity_rollouts",
    "reachable",
    "selection_ceiling",
    "total_divergence",
    "travel_updates",
    "trial_rollouts",
]
