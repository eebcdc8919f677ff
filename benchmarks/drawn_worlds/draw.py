"""Worlds and base policies drawn at random, so that the rule is judged where nothing was tuned.

A *family* is a set of skills that no packaged world has (new words, right strategies and base rates, and a share of answers that slip
although the strategy is right) with a policy trained from nothing to have them. A *world* is some of a family's skills in some proportion.
Everything follows from the number of the family and of the world.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dopr.tasks.world_text import STRATEGIES, LatentSkill, Skill, SumSkill
from dopr.tasks.worlds import WORLD_NAMES, world_skills

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261127  # the day it was written; no other has been tried
SLIPS = (0.0, 0.1, 0.3)  # by family: share of answers with one digit wrong, whatever the strategy
LATENT = 24  # skills of a family, beside the shared one
RATES = (0.004, 0.98)  # base propensities, drawn evenly in their log-odds: many near 0 and 1, as in real problem sets
SKILLS = (4, 16)  # latent skills of a world, from and to
SLOTS = (6, 12)  # most problems of a block per latent skill, and of the shared one, which is in half of the worlds
LEARNABLE = 0.85  # a base mean above leaves nothing to learn: such a world is drawn again
TRAIN, TEST = 2000, 256  # problems


@dataclass(frozen=True, kw_only=True, slots=True)
class SlippingSkill(LatentSkill):
    """A latent skill whose answers have one digit off by one now and then."""

    slip: float

    @property
    def p_plus(self) -> float:
        """See `Skill`."""
        return 1 - self.slip

    @property
    def base_success(self) -> float:
        """See `Skill`; but for a wrong strategy that slips into the right answer."""
        return self.propensity * self.p_plus

    def completions(self, prompt: str) -> dict[str, float]:
        """See `Skill`."""
        texts: dict[str, float] = {}
        for text, p in LatentSkill.completions(self, prompt).items():
            texts[text] = p * (1 - self.slip)
            letter, digits = text.split("=")
            near = [
                digits[:i] + str((int(digit) + step) % 10) + digits[i + 1 :]
                for i, digit in enumerate(digits)
                for step in (-1, 1)
            ]
            texts |= {f"{letter}={wrong}": p * self.slip / len(near) for wrong in near if self.slip}
        return texts


@dataclass(frozen=True, kw_only=True)
class World:
    """Skills and how many problems of each a block holds."""

    name: str
    skills: tuple[Skill, ...]
    slots: tuple[int, ...]

    @property
    def base_mean(self) -> float:
        """Designed success of the base policy on a random problem."""
        return float(np.average([skill.base_success for skill in self.skills], weights=self.slots))


def _rng(purpose: str, *numbers: int) -> np.random.Generator:
    """Streams of different purposes have nothing in common; trailing zeros alone would not tell them apart."""
    return np.random.default_rng([SEED, *purpose.encode(), *(n + 1 for n in numbers)])


def family(number: int) -> tuple[Skill, ...]:
    """The shared skill and the latent ones of a family."""
    rng = _rng("family", number)
    taken = {s.word for name in WORLD_NAMES for s in world_skills(name) if isinstance(s, LatentSkill)} | {"sum"}
    words: list[str] = []
    while len(words) < LATENT:
        word = "".join(str(rng.choice(list(letters))) for letters in ("bdfgjkmnprtvz", "aeiou") * 2)
        if word not in taken:
            taken.add(word)
            words.append(word)
    low, high = (np.log(rate / (1 - rate)) for rate in RATES)
    latent = [
        SlippingSkill(
            name=f"s{i + 1:02d}",
            word=word,
            right=str(rng.choice(list(STRATEGIES))),
            propensity=float(1 / (1 + np.exp(-rng.uniform(low, high)))),
            turn=int(rng.integers(len(STRATEGIES) - 1)),
            slip=SLIPS[number % len(SLIPS)],
        )
        for i, word in enumerate(words)
    ]
    return SumSkill(name="sum", thinks={length: float(rng.uniform(0.05, 0.4)) for length in (3, 4, 5)}), *latent


def world(number: int, index: int) -> World:
    """World ``index`` of family ``number``."""
    rng = _rng("world", number, index)
    shared, *latent = family(number)
    while True:
        some = sorted(int(i) for i in rng.permutation(LATENT)[: rng.integers(SKILLS[0], SKILLS[1] + 1)])
        skills, slots = [latent[i] for i in some], [int(n) for n in rng.integers(1, SLOTS[0] + 1, size=len(some))]
        if rng.random() < 0.5:
            skills, slots = [shared, *skills], [int(rng.integers(1, SLOTS[1] + 1)), *slots]
        drawn = World(name=f"{number}.{index}", skills=tuple(skills), slots=tuple(slots))
        if drawn.base_mean <= LEARNABLE:
            return drawn


def problems(drawn: World, split: str, size: int) -> list[dict[str, Any]]:
    """Problems in the world's proportions, each prompt once; those of ``train`` and ``test`` have no prompt in common."""
    rng = _rng(split, *map(int, drawn.name.split(".")))
    shares = np.array(drawn.slots) / sum(drawn.slots)
    edges = np.round(np.cumsum([0.0, *shares]) * size).astype(int)
    rows = []
    for skill, count in zip(drawn.skills, np.diff(edges), strict=True):
        prompts = [stratum[i][1] for stratum in skill.strata(split) for i in range(len(stratum))]
        if len(prompts) < count:
            raise ValueError(f"World {drawn.name} asks for {count} {split} prompts of {skill.name}, of {len(prompts)}.")
        rows += [
            {"prompt": prompts[i], "answer": skill.answer(prompts[i]), "skill": skill.name}
            for i in rng.permutation(len(prompts))[:count]
        ]
    return [rows[i] | {"id": f"{split}-{n}"} for n, i in enumerate(rng.permutation(len(rows)))]


def write_problems(drawn: World, directory: Path) -> None:
    """``train.jsonl`` and ``test.jsonl``."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, size in (("train", TRAIN), ("test", TEST)):
        lines = (json.dumps(row) for row in problems(drawn, split, size))
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def make_policy(number: int, directory: Path, steps: int = 2000) -> None:
    """Train the base policy of a family, as scripts/make_tiny_policy.py trains the packaged one."""
    import torch

    sys.path.insert(0, str(ROOT / "scripts"))
    from make_tiny_policy import Corpus, make_model, make_tokenizer, train

    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(number)
    tokenizer = make_tokenizer(directory)
    model = make_model(tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer))
    shared, *latent = family(number)
    skills: dict[str, Sequence[Skill]] = {"shared": [shared], "latent": latent}
    corpus = Corpus(tokenizer, _rng("corpus", number), {"shared": 0.25, "latent": 0.75}, skills)
    train(model, corpus, steps=steps, batch=128, rate=3e-3)
    model.save_pretrained(directory)
