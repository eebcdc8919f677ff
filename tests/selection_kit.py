"""Any strategy, ready to run: with the metadata that some need, derived from the prompt ids."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dopr.selection import Selector, SelectorConfig, make_selector


def metadata(ids: Sequence[str] | range) -> dict[str, list[Any]]:
    codes = [zlib.crc32(str(i).encode()) for i in ids]
    return {"category": [f"c{code % 5}" for code in codes], "difficulty": [code % 101 for code in codes]}


def build(name: str, ids: Sequence[str] | range, options: dict[str, Any] | None = None, **config: Any) -> Selector:
    selector = make_selector(name, ids, SelectorConfig(**config), options)
    selector.set_metadata(metadata(ids))
    return selector


def ids(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


def play(selector: Selector, reward: Callable[[int], float | None], rounds: int = 1) -> list[tuple[str, int, str]]:
    """Rounds as the trainer runs them, refills included; ``reward`` takes a row. Returns (id, rollouts, action)."""
    out = []
    for _ in range(rounds):
        done: dict[int, tuple[str, list[float | None], str]] = {}
        picks = selector.ask()
        k = len(picks)
        for refill in range(selector.max_refills + 1):
            for pick in picks:
                assert pick.row not in done, "a prompt came twice in one round"
                rewards = [reward(pick.row) for _ in range(pick.rollouts)]
                while (verdict := selector.review(pick.prompt_id, rewards)).action == "more":
                    assert verdict.rollouts > 0
                    rewards += [reward(pick.row) for _ in range(verdict.rollouts)]
                done[pick.row] = pick.prompt_id, rewards, verdict.action
            if sum(action == "keep" for _, _, action in done.values()) >= k or refill == selector.max_refills:
                break
            if not (picks := selector.ask(exclude=set(done))):
                break
        for prompt_id, rewards, action in done.values():
            selector.tell(prompt_id, rewards)
            out.append((prompt_id, len(rewards), action))
    return out


def bernoulli(rates: np.ndarray, seed: int = 0) -> Callable[[int], float]:
    rng = np.random.default_rng(seed)
    return lambda row: float(rng.random() < rates[row])
