"""The heart: which prompt next, how many rollouts, and what is learned from them. NumPy and the standard library only."""

from dopr.selection.dopr_options import DoprOptions
from dopr.selection.dopr_rule import Dopr
from dopr.selection.registry import STRATEGIES, make_selector
from dopr.selection.rollouts import Review, SequentialRollouts
from dopr.selection.selector import Selector
from dopr.selection.settings import Pick, SelectorConfig

__all__ = [
    "STRATEGIES",
    "Dopr",
    "DoprOptions",
    "Pick",
    "Review",
    "Selector",
    "SelectorConfig",
    "SequentialRollouts",
    "make_selector",
]
