"""Packaged procedural worlds: problems with checkable answers, and everything there is to know about them.

The worlds share one packaged base policy (`dopr.tasks.tiny`): three it was trained on, and two that put skills of those
together in other proportions. Because every strategy, frequency and designed success rate is known, the bounds of
`dopr.theory` can be computed for them. Every completion ends ``=ANSWER``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from dopr.errors import ConfigError, suggest
from dopr.tasks.problems import Problem
from dopr.tasks.world_text import STRATEGIES, LatentSkill, Skill, SumSkill

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class SkillInfo:
    """What is known of one skill of a world."""

    name: str
    frequency: float  # share of the world's problems (f of theorem T4); exact in every whole block of problems
    strategies: int  # M of theorem T3
    p_plus: float  # success probability of the right strategy, carried out without a slip
    p_minus: float  # success probability of a wrong strategy, carried out without a slip
    base_success: float  # designed success probability of the base policy (p_s of theorem T5)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldInfo:
    """What is known of a world; rates are of the design, `dopr.tasks.tiny.measured_success` has the checkpoint's."""

    name: str
    summary: str
    skills: tuple[SkillInfo, ...]
    block: int  # problems per block; every block holds each skill in exact proportion
    train_size: int = 2000  # problems when no size is asked for
    test_size: int = 256
    temperature: float = 1.0  # sampling temperature the rates are stated for
    max_completion_tokens: int = 10  # enough for every completion and the end token

    @property
    def mean_base_success(self) -> float:
        """Designed J0: expected success of the base policy on a random problem."""
        return sum(skill.frequency * skill.base_success for skill in self.skills)


@dataclass(frozen=True, kw_only=True, slots=True)
class _World:
    summary: str
    skills: tuple[Skill, ...]
    slots: tuple[int, ...]  # how many problems of each skill a block holds


def _latent_skills(words: str, propensities: str) -> tuple[LatentSkill, ...]:
    """Skills s01, s02, ... from the most to the least likely to be answered."""
    letters = tuple(STRATEGIES)
    return tuple(
        LatentSkill(
            name=f"s{i + 1:02d}",
            word=word,
            right=letters[(5 * i + i // 6) % len(letters)],
            propensity=float(propensity),
            turn=i + i // 5,
        )
        for i, (word, propensity) in enumerate(zip(words.split(), propensities.split(), strict=True))
    )


# The words, strategies and propensities below are what the packaged checkpoint was trained on: change them, and
# scripts/make_tiny_policy.py has to be run again.
_SUM = SumSkill(name="sum", thinks={3: 0.28, 4: 0.22, 5: 0.16})
_LATENT = _latent_skills(
    "rivi zubo zeta fako gopa rebe mifo rofe bage feji gute bime fidi jura kini fone",
    ".60 .52 .45 .39 .33 .27 .22 .18 .14 .10 .075 .05 .035 .02 .014 .01",
)
_MIXED = _latent_skills(
    "kefu repo jome dope toke doju zupi divu nuzi piki tivo kevo vofu nepa moko tudu gevi mavu kapu ruko fero raka "
    "tune jaze",
    ".98 .955 .92 .87 .82 .75 .67 .58 .48 .36 .24 .14 .085 .055 .035 .022 .015 .011 .008 .006 .005 .004 .003 .002",
)


def _recombined(*skills: LatentSkill) -> tuple[LatentSkill, ...]:
    """Skills the checkpoint knows from other worlds, named s01, s02, ... in the order given."""
    return tuple(replace(skill, name=f"s{i + 1:02d}") for i, skill in enumerate(skills))


_WORLDS = {
    "shared-skill": _World(
        summary="one skill shared by all prompts: think first, or guess",
        skills=(_SUM,),
        slots=(1,),
    ),
    "latent-strategy": _World(
        summary="sixteen skills, each with its own right strategy among six, base propensities .6 to .01",
        skills=_LATENT,
        slots=(1,) * len(_LATENT),
    ),
    "mixed": _World(
        summary="the shared skill and 24 latent ones, some mastered, some hopeless, as uneven as a real problem set",
        skills=(_SUM, *_MIXED),
        slots=(8,) + (1,) * len(_MIXED),
    ),
    # Base mean 4.9 %. One problem in four is learnable (eight skills, .45 to .035), three in four hopeless (.015 to .002).
    "mostly-hopeless": _World(
        summary="eight skills of base rates .45 to .035 are a quarter of the problems; eight of .015 to .002 are the rest",
        skills=_recombined(*(_LATENT[i] for i in (2, 4, 6, 8, 9, 10, 11, 12)), *_MIXED[16:24]),
        slots=(1,) * 8 + (3,) * 8,
    ),
    # Base mean 74.4 %. Three problems in four are mastered (.98 to .87), which leaves 5 points; the fourth (.52 to .01) holds 20.
    "mostly-mastered": _World(
        summary="four skills of base rates .98 to .87 are three quarters of the problems; eight of .52 to .01 are the rest",
        skills=_recombined(*_MIXED[:4], *(_LATENT[i] for i in (1, 3, 5, 8, 10, 12, 13, 15))),
        slots=(6,) * 4 + (1,) * 8,
    ),
}
WORLD_NAMES = tuple(_WORLDS)


def _world(name: str) -> _World:
    if name not in _WORLDS:
        raise ConfigError(f"There is no packaged world {name!r}. {suggest(name, _WORLDS)}")
    return _WORLDS[name]


def world_skills(name: str) -> tuple[Skill, ...]:
    """The skills of a world, with their prompts and designed base behaviour.

    Raises:
        ConfigError: ``name`` is no packaged world.
    """
    return _world(name).skills


def world_info(name: str) -> WorldInfo:
    """The known facts of a world.

    Raises:
        ConfigError: ``name`` is no packaged world.
    """
    world = _world(name)
    block = sum(world.slots)
    skills = tuple(
        SkillInfo(
            name=skill.name,
            frequency=slots / block,
            strategies=skill.strategies,
            p_plus=skill.p_plus,
            p_minus=skill.p_minus,
            base_success=skill.base_success,
        )
        for skill, slots in zip(world.skills, world.slots, strict=True)
    )
    return WorldInfo(name=name, summary=world.summary, skills=skills, block=block)


def load_world(name: str, *, split: str = "train", size: int | None = None, seed: int = 0) -> list[Problem]:
    """The first ``size`` problems of a world's seeded stream.

    Problems come in shuffled blocks that hold every skill in exact proportion, and never repeat. A longer list starts
    with the shorter one. Train and test prompts are disjoint for every pair of seeds. An id such as
    ``latent-strategy/s07/014173`` stands for the same prompt whatever the size, split and seed.

    Args:
        name: one of `WORLD_NAMES`.
        split: ``train`` or ``test``.
        size: number of problems; by default `WorldInfo.train_size` or `WorldInfo.test_size`.
        seed: which problems, and their order.

    Raises:
        ConfigError: unknown world or split, a size below 1 or above what the world holds, a negative seed.
    """
    world, info = _world(name), world_info(name)
    if split not in SPLITS:
        raise ConfigError(f"World {name!r} has no split {split!r}. {suggest(split, SPLITS)}")
    if seed < 0:
        raise ConfigError(f"The seed of world {name!r} is {seed}, but a seed cannot be negative. Use 0 or more.")
    if size is None:
        size = info.train_size if split == "train" else info.test_size
    capacity = info.block * min(
        _capacity(skill, split) // slots for skill, slots in zip(world.skills, world.slots, strict=True)
    )
    if not 1 <= size <= capacity:
        raise ConfigError(
            f"World {name!r} was asked for {size:,} {split} problems, which it cannot give. Ask for 1 to {capacity:,}."
        )
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    blocks = -(-size // info.block)
    streams = [
        _shuffled(skill, split, blocks * slots, rng) for skill, slots in zip(world.skills, world.slots, strict=True)
    ]
    block = np.repeat(np.arange(len(world.skills)), world.slots)
    taken: Counter[int] = Counter()
    problems: list[Problem] = []
    for _ in range(blocks):
        for k in map(int, rng.permutation(block)):
            number, prompt = streams[k][taken[k]]
            taken[k] += 1
            skill = world.skills[k]
            problems.append(
                Problem(
                    id=f"{name}/{skill.name}/{number:06d}",
                    prompt=prompt,
                    answer=skill.answer(prompt),
                    extra={"skill": skill.name, "world": name, "difficulty": round(1 - skill.base_success, 4)},
                )
            )
    return problems[:size]


def _capacity(skill: Skill, split: str) -> int:
    """How many problems of a skill can be drawn before one of its strata runs out."""
    strata = skill.strata(split)
    return len(strata) * min(map(len, strata))


def _shuffled(skill: Skill, split: str, count: int, rng: np.random.Generator) -> list[tuple[int, str]]:
    """At least ``count`` of a skill's problems in random order, its strata in turn."""
    strata = skill.strata(split)
    each = -(-count // len(strata))
    shuffled = [[stratum[i] for i in rng.permutation(len(stratum))[:each]] for stratum in strata]
    return [problem for turn in zip(*shuffled, strict=True) for problem in turn]
