"""Texts of one collection that repeat texts of another: shared word n-grams, by hashing. NumPy only.

For each pair the share of the second text's different n-grams that stand in the first too is exact, up to hash collisions
(64 bits); n-grams that very many texts hold (the words around every problem) are left out. 10^5 problems against 10^5
take seconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N = 5
"""Words per n-gram."""
_COMMON = 50  # n-grams in more texts of the second collection than this say nothing
_FACTORS = np.array([0x9E3779B97F4A7C15 * (2 * k + 1) % 2**64 for k in range(N)], dtype=np.uint64)
# LaTeX that says how something looks. Other commands keep their names: sin x is not cos x.
_LAYOUT = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|[dtc]?frac|text(?:bf|it|rm|sf|tt)?|mbox|hbox|math(?:rm|bf|it|sf|tt|bb|cal|frak|scr)"
    r"|operatorname|(?:display|text|script)style|q?quad|begin|end|[hv]space|limits|nolimits|boxed|underline|hline)(?![A-Za-z])"
)
# Written without blanks, so each character is a word: Han and kana.
_SINGLE = "\u3040-\u309f\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = rf"[{_SINGLE}]|[^\W\d_{_SINGLE}]+|\d+(?:\.\d+)?"
_WORDS = re.compile(_WORD)
_WORDS_AND_SIGNS = re.compile(rf"{_WORD}|[^\s${{}}\\]")
# Not after what may be a factorial: n!, 5!
_SENTENCE_MARKS = re.compile(r"(?<=[^\W\d_]{3})[.,;:!?]+(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Pair:
    """Text ``first`` of the one collection holds the share ``overlap`` of text ``second`` of the other."""

    first: int
    second: int
    overlap: float


def words_of(text: str) -> list[str]:
    """The words of any script and the numbers of a text in small letters, without LaTeX's layout, signs and punctuation."""
    return _WORDS.findall(_plain(text).casefold())


def folded(text: str) -> str:
    """The wording but for upper and lower case, white space, and the marks after words: all signs of a formula stand in it."""
    text = " ".join(text.casefold().split())
    return _SENTENCE_MARKS.sub("", text).rstrip(" .?") or text


def _plain(text: str) -> str:
    return _LAYOUT.sub(" ", text) if "\\" in text else text


def overlaps(first: Sequence[str], second: Sequence[str], *, least: float) -> list[Pair]:
    """For every text of ``first`` the text of ``second`` that it repeats most, where that is at least ``least``.

    Texts of fewer than five words count as repeated only where all words and signs agree.

    Args:
        first: texts, of which each gets at most one pair.
        second: texts that ``first`` should not hold.
        least: share in (0, 1].
    """
    hashes_a, rows_a = _ngrams(first)
    hashes_b, rows_b = _ngrams(second)
    if not len(hashes_a) or not len(hashes_b):
        return []
    sizes = np.bincount(rows_b, minlength=len(second))
    order = np.argsort(hashes_b, kind="stable")
    hashes_b, rows_b = hashes_b[order], rows_b[order]
    left, right = np.searchsorted(hashes_b, hashes_a, "left"), np.searchsorted(hashes_b, hashes_a, "right")
    found = (right > left) & (right - left <= _COMMON)
    starts, counts, rows = left[found], (right - left)[found], rows_a[found]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    matched = rows_b[np.repeat(starts, counts) + within]
    keys, shared = np.unique(np.repeat(rows, counts) * len(second) + matched, return_counts=True)
    a, b = keys // len(second), keys % len(second)
    share = shared / sizes[b]
    kept = share >= least
    best: dict[int, Pair] = {}
    for i, j, overlap in zip(a[kept].tolist(), b[kept].tolist(), share[kept].tolist(), strict=True):
        if i not in best or overlap > best[i].overlap:
            best[i] = Pair(i, j, overlap)
    return list(best.values())


class _Codes(dict[str, int]):
    """64-bit hashes of words, the same in every process."""

    def __missing__(self, word: str) -> int:
        code = self[word] = int.from_bytes(
            hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
        )
        return code


def _ngrams(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The different n-grams of each text as hashes, and the text that each stands in."""
    codes = _Codes()
    ids: list[int] = []
    lengths: list[int] = []
    for text in texts:
        words = words_of(text)
        if 0 < len(words) < N:  # one n-gram that stands for all of it, 5 - 3 apart from 5 + 3
            words = [" ".join(_WORDS_AND_SIGNS.findall(folded(_plain(text)))), *[""] * (N - 1)]
        ids.extend([codes[word] for word in words])
        lengths.append(len(words))
    flat = np.array(ids, dtype=np.uint64)
    if len(flat) < N:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    rows = np.repeat(np.arange(len(texts)), lengths)
    count = len(flat) - N + 1
    mixed = np.zeros(count, dtype=np.uint64)
    for k in range(N):
        mixed = (mixed ^ (flat[k : k + count] * _FACTORS[k])) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
    whole = rows[:count] == rows[N - 1 :]  # does not run over into the next text
    mixed, rows = mixed[whole], rows[:count][whole]
    _, different = np.unique(mixed + rows.astype(np.uint64) * _FACTORS[0], return_index=True)
    return mixed[different], rows[different]
