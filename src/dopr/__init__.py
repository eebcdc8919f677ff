"""dopr: reinforcement learning with verifiable rewards, an order of magnitude cheaper.

``import dopr`` needs NumPy alone. ``dopr.DoPRTrainer`` and ``dopr.DoPRConfig`` load TRL when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dopr.selection import Pick, Review, Selector, SelectorConfig, make_selector

if TYPE_CHECKING:
    from dopr.train.config import DoPRConfig
    from dopr.train.trainer import DoPRTrainer

__version__ = "0.1.0"
__all__ = ["DoPRConfig", "DoPRTrainer", "Pick", "Review", "Selector", "SelectorConfig", "make_selector"]


def __getattr__(name: str) -> Any:
    if name == "DoPRTrainer":
        from dopr.train.trainer import DoPRTrainer

        return DoPRTrainer
    if name == "DoPRConfig":
        from dopr.train.config import DoPRConfig

        return DoPRConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
