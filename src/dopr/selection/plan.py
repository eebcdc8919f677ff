"""Candidate batches: which prompts may be chosen in a round, as a pure function of (seed, round).

A keyed permutation of ``range(n)`` (a small Feistel network with cycle walking) is evaluated only at the positions
asked for, so drawing a batch costs O(batch) time and no memory, whether the pool holds 10^3 or 10^7 prompts, and a
resumed run needs nothing but its round number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEISTEL_ROUNDS = 4
_AHEAD = 4096  # positions evaluated at once: thirty rounds of 128 candidates cost little more than one
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd constant of a Weyl sequence: 2^64 / golden ratio


def _mix(x: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Keyed 64-bit mixing; wraps on overflow by design."""
    x = (x ^ key) * _MIX
    x ^= x >> np.uint64(29)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(32))


class KeyedPermutation:
    """A pseudorandom permutation of ``range(n)``, evaluated pointwise.

    Args:
        n: Size of the domain, at least 1.
        key: Any non-negative integers; equal keys give equal permutations.
    """

    def __init__(self, n: int, *key: int) -> None:
        self.n = n
        half_bits = max(1, ((max(n - 1, 1)).bit_length() + 1) // 2)
        self._shift = np.uint64(half_bits)
        self._mask = np.uint64((1 << half_bits) - 1)
        self._keys = np.random.SeedSequence(list(key)).generate_state(_FEISTEL_ROUNDS, np.uint64)

    def __call__(self, positions: Any) -> NDArray[np.int64]:
        """Images of ``positions`` (integers in [0, n), any 1-d array-like), shape (len(positions),)."""
        x = np.asarray(positions, dtype=np.uint64)
        out = self._encrypt(x)
        # Cycle walking: the network permutes a power of two >= n; walk on until the image falls inside [0, n).
        while (outside := out >= self.n).any():
            out[outside] = self._encrypt(out[outside])
        return out.astype(np.int64)

    def _encrypt(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = x >> self._shift, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right, key) & self._mask)
        return (left << self._shift) | right


class CandidatePlan:
    """The candidate batch of every round.

    Rounds are grouped in epochs; each epoch deals a fresh permutation of the pool.

    Args:
        pool: Number of prompts N.
        size: Wanted candidates per round B, 1 <= B <= N.
        seed: Seed of the deal.
        exact: ``True`` gives exactly B prompts every round and leaves the N mod B last ones of each epoch's
            permutation out (how batch training drops a ragged last batch). ``False`` deals every prompt exactly once
            per epoch in nearly equal batches of about B.
        least: No batch is smaller than this, 1 <= least <= B.
    """

    def __init__(self, pool: int, size: int, seed: int, *, exact: bool = False, least: int = 1) -> None:
        self.pool, self.size, self.seed, self.exact = pool, size, seed, exact
        self.rounds_per_epoch = pool // size if exact else max(1, min(round(pool / size), pool // least))
        self._epoch = -1
        self._permutation: KeyedPermutation | None = None
        self._first, self._dealt = 0, np.empty(0, np.int64)  # images of the positions from `first` on

    def batch(self, round_: int) -> NDArray[np.int64]:
        """Row numbers of the candidates of ``round_`` (0-based), all distinct, shape (about B,)."""
        if self.size == self.pool:
            return np.arange(self.pool)  # everyone, every round: there is nothing to deal
        epoch, slot = divmod(round_, self.rounds_per_epoch)
        if self._permutation is None or epoch != self._epoch:
            self._epoch, self._permutation = epoch, KeyedPermutation(self.pool, self.seed, epoch)
            self._dealt = np.empty(0, np.int64)
        if self.exact:
            start, stop = slot * self.size, (slot + 1) * self.size
        else:
            start, stop = (s * self.pool // self.rounds_per_epoch for s in (slot, slot + 1))
        if not self._first <= start <= stop <= self._first + len(self._dealt):
            self._first = start
            self._dealt = self._permutation(np.arange(start, min(max(stop, start + _AHEAD), self.pool)))
        return self._dealt[start - self._first : stop - self._first].copy()
