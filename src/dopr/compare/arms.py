"""What is compared: arms, each a strategy with its settings, and the runs they need."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dopr.config import CompareSettings, TrainSettings
from dopr.config_layers import build, parse_pair
from dopr.errors import ConfigError
from dopr.selection.registry import STRATEGIES, check_strategy, make_options
from dopr.train.prepare import is_tiny_name, prompts_per_round

#: Factors of the default learning-rate grid around the model's default rate.
GRID = (0.5, 1.0, 2.0)
TUNING_SEED = 1000  # tuning seeds start here, so that no reported seed was tuned on


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One strategy with its settings.

    Attributes:
        name: Such as ``uniform+prompts_per_round=64``.
        family: As given. Arms of one family, such as ``uniform+prompts_per_round=8|64``, are alternatives: they are tuned
            against each other, and the best is reported under the family's name.
        settings: Overrides of the common settings.
        rates: Its learning-rate grid.
    """

    name: str
    family: str
    settings: dict[str, Any]
    rates: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run of the comparison.

    Attributes:
        arm: Name of its arm.
        rate: Learning rate.
        seed: Seed of everything random.
        tuning: Whether it only serves to choose the learning rate.
        settings: Complete settings of the run, without its output directory.
    """

    arm: str
    rate: float
    seed: int
    tuning: bool
    settings: TrainSettings

    @property
    def slug(self) -> str:
        """Directory name: letters, digits and dashes."""
        text = re.sub(r"[^A-Za-z0-9.]+", "-", self.arm).strip("-")
        return f"{text}--lr{self.rate:g}--seed{self.seed}"


def common_settings(settings: CompareSettings) -> dict[str, Any]:
    """The part of the settings that every run shares."""
    own = {f.name for f in dataclasses.fields(CompareSettings)} - {f.name for f in dataclasses.fields(TrainSettings)}
    left_out = own | {"output", "strategy", "seed", "resume"}
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name not in left_out}
    if settings.world is not None:
        values["data"] = f"world:{settings.world}"
    if values["evaluations"] is None:
        values["evaluations"] = 20  # a curve is what a comparison reads
    return values


def make_arms(settings: CompareSettings, lacking: Iterable[str] = ()) -> tuple[list[Arm], list[str]]:
    """The arms asked for, and the presets that ``all`` left out.

    Args:
        settings: Of the comparison.
        lacking: Metadata that the problems do not have (``category``, ``difficulty``): presets that need it are left out
            of ``all``, and refused where named.

    Raises:
        ConfigError: An arm that cannot be read, is named twice, or cannot run on these problems; seeds that are tuned on.
    """
    tuned = range(TUNING_SEED, TUNING_SEED + settings.tuning_seeds)
    if any(settings.seed + i in tuned for i in range(settings.seeds)):
        raise ConfigError(
            f"Seeds {settings.seed} to {settings.seed + settings.seeds - 1} would be reported, and {tuned[0]} to {tuned[-1]} choose "
            "the learning rates. Give another --seed."
        )
    names = [name.strip() for text in settings.strategies for name in text.split(",") if name.strip()]
    absent = set(lacking)
    left_out = [n for n, cls in STRATEGIES.items() if "all" in names and absent & set(cls.needs) and n not in names]
    expanded = [n for name in names for n in ([*STRATEGIES] if name == "all" else [name])]
    wanted = list(dict.fromkeys(n for n in expanded if n not in left_out))
    if not wanted:
        raise ConfigError("No strategy to compare. Give --strategies all, or names such as dopr,uniform,random-one.")
    arms = [_make_arm(name, family, settings) for family in wanted for name in _alternatives(family)]
    if settings.tuning_seeds == 0 and len(arms) > len(wanted):
        raise ConfigError("Alternatives such as 4|8 are chosen by tuning runs, and tuning_seeds is 0. Set it above 0.")
    for arm in arms:
        cls = check_strategy(arm.settings["strategy"])
        for field in cls.needs:
            if field in absent:
                raise ConfigError(
                    f"Arm {arm.name!r} needs a {field} for every problem, and these problems have none. Leave it out, or "
                    f"add a column {field!r}."
                )
    names = list(dict.fromkeys(arm.name for arm in arms))  # one arm may belong to several families
    slugs = [Job(arm=name, rate=1, seed=0, tuning=False, settings=TrainSettings()).slug for name in names]
    if len(set(slugs)) < len(slugs):
        raise ConfigError(f"Two arms are alike but for punctuation: {', '.join(wanted)}. Name each once.")
    return arms, left_out


def _alternatives(family: str) -> list[str]:
    """``a+b=1|2`` as ``a+b=1`` and ``a+b=2``; several settings with alternatives give every combination."""
    strategy, *pairs = family.split("+")
    choices = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        choices.append([f"{key}{equals}{one}" for one in value.split("|")])
    return ["+".join([strategy, *chosen]) for chosen in itertools.product(*choices)]


def _make_arm(name: str, family: str, settings: CompareSettings) -> Arm:
    strategy, *pairs = name.split("+")
    overrides: dict[str, Any] = {"strategy": strategy}
    options: dict[str, Any] = {}
    for pair in pairs:
        key, value = parse_pair(pair)
        if key.startswith("option."):
            options[key.removeprefix("option.")] = value
        else:
            overrides[key.replace("-", "_")] = value
    cls = check_strategy(strategy)
    make_options(cls, options)
    if options:
        overrides["option"] = options
    common = common_settings(settings)
    built = build(TrainSettings, common, overrides)  # refuses what is no setting of a run
    if "learning_rate" in overrides:
        return Arm(name=name, family=family, settings=overrides, rates=(float(overrides["learning_rate"]),))
    base = settings.learning_rates
    if not base:
        if not is_tiny_name(settings.model) and not settings.lora:
            raise ConfigError(
                f"The learning rates to try on {settings.model} are not known. Give --learning-rates once for each, such as "
                "--learning-rates 1e-6 --learning-rates 3e-6 --learning-rates 1e-5."
            )
        base = tuple(factor * (2e-5 if settings.lora else 1e-4) for factor in GRID)
    # Adam's step does not shrink with the batch's noise; the usual square-root rule centres the grid of larger batches.
    scale = math.sqrt(prompts_per_round(built))
    rates = tuple(float(f"{rate * scale:.2g}") for rate in sorted(base))
    return Arm(name=name, family=family, settings=overrides, rates=rates)


def tuning_jobs(arms: Sequence[Arm], settings: CompareSettings) -> list[Job]:
    """Runs that choose each arm's learning rate, and among alternatives; none where there is nothing to choose."""
    seeds = [TUNING_SEED + i for i in range(settings.tuning_seeds)]
    size = Counter(arm.family for arm in arms)
    jobs = [
        _job(arm, rate, seed, settings, tuning=True)
        for seed in seeds
        for arm in arms
        if len(arm.rates) > 1 or size[arm.family] > 1
        for rate in arm.rates
    ]
    return list({job.slug: job for job in jobs}.values())


def final_jobs(arms: Sequence[Arm], rates: dict[str, float], settings: CompareSettings) -> list[Job]:
    """Runs that are reported: every arm at its chosen rate, on seeds that were not tuned on."""
    jobs = [
        _job(arm, rates[arm.name], settings.seed + i, settings, tuning=False)
        for i in range(settings.seeds)
        for arm in arms
    ]
    return list({job.slug: job for job in jobs}.values())


def _job(arm: Arm, rate: float, seed: int, settings: CompareSettings, *, tuning: bool) -> Job:
    own = {"learning_rate": rate, "seed": seed}
    built = build(TrainSettings, common_settings(settings), arm.settings, own)
    return Job(arm=arm.name, rate=rate, seed=seed, tuning=tuning, settings=built)
