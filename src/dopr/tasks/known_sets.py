"""Published evaluation sets by name: where the hub has them, and how local copies are found.

=============  =================================  ======  ========  ===========================================
name           on the hub                         split   problems  columns
=============  =================================  ======  ========  ===========================================
gsm8k          openai/gsm8k, config main          test       1,319  question, answer (after ``####``)
math500        HuggingFaceH4/MATH-500             test         500  problem, answer
aime24         HuggingFaceH4/aime_2024            train         30  problem, answer
aime25         math-ai/aime25                     test          30  problem, answer
amc23          math-ai/amc23                      test          40  question, answer
minerva        math-ai/minervamath                test         272  question, answer
olympiadbench  math-ai/olympiadbench              test         674  question, final_answer (a list)
=============  =================================  ======  ========  ===========================================

A local copy is a file ``NAME`` or ``NAME_test`` with any of the known extensions, or a directory ``NAME``, in the folder
given with ``--data-dir``; its columns are looked up as for any file, so copies with other column names work too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dopr.errors import DataError
from dopr.tasks.rows import READERS


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownSet:
    """A published set."""

    hub: str
    """Hub name, with the configuration after a colon where it has several."""
    split: str
    """Split to evaluate on."""
    problems: int
    """How many there are."""


KNOWN_SETS = {
    "gsm8k": KnownSet(hub="openai/gsm8k:main", split="test", problems=1319),
    "math500": KnownSet(hub="HuggingFaceH4/MATH-500", split="test", problems=500),
    "aime24": KnownSet(hub="HuggingFaceH4/aime_2024", split="train", problems=30),
    "aime25": KnownSet(hub="math-ai/aime25", split="test", problems=30),
    "amc23": KnownSet(hub="math-ai/amc23", split="test", problems=40),
    "minerva": KnownSet(hub="math-ai/minervamath", split="test", problems=272),
    "olympiadbench": KnownSet(hub="math-ai/olympiadbench", split="test", problems=674),
}


def find_set(name: str, data_dir: str | None) -> tuple[str, str]:
    """``(source, split)`` of a known set: its local copy in ``data_dir``, or without one the hub's.

    Raises:
        DataError: ``data_dir`` is given and holds no copy.
    """
    known = KNOWN_SETS[name]
    if data_dir is None:
        return known.hub, known.split
    folder = Path(data_dir).expanduser()
    for stem in (name, f"{name}_test"):
        for path in (folder / stem, *(folder / f"{stem}{suffix}" for suffix in READERS)):
            if path.exists():
                return str(path), known.split
    raise DataError(
        f"{data_dir} holds no copy of {name}: it would be {name} or {name}_test with one of {', '.join(READERS)}, or a directory "
        f"{name}. Put it there, or leave out --data-dir to take {known.hub} from the hub."
    )
