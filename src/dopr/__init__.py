"""dopr: reinforcement learning with verifiable rewards, an order of magnitude cheaper.

``import dopr`` loads nothing else. The selection core, which needs NumPy alone, comes with its first name;
``dopr.DoPRTrainer`` and ``dopr.DoPRConfig`` load TRL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dopr.selection import Pick, Review, Selector, SelectorConfig, make_selector
    from dopr.train.config import DoPRConfig
    from dopr.train.trainer import DoPRTrainer

__version__ = "0.1.0"
__all__ = ["DoPRConfig", "DoPRTrainer", "Pick", "Review", "Selector", "SelectorConfig", "make_selector"]

_HOME = {"DoPRConfig": "dopr.train.config", "DoPRTrainer": "dopr.train.trainer"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "dopr.selection")), name)
