"""benchmarks/drawn_worlds: what it draws is sound, its runs are the real trainer's, and its page is that of the stored runs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dopr.tasks.world_text import LatentSkill, is_held_out
from dopr.tasks.worlds import WORLD_NAMES, world_skills

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for directory in (ROOT / "benchmarks", ROOT / "scripts", ROOT / "benchmarks" / "drawn_worlds"):
        monkeypatch.syspath_prepend(str(directory))
    import draw

    yield draw
    for name in ("draw", "run", "page", "suite", "make_tiny_policy"):
        sys.modules.pop(name, None)


def test_families_have_skills_of_their_own(draw: ModuleType) -> None:
    packaged = {s.word for name in WORLD_NAMES for s in world_skills(name) if isinstance(s, LatentSkill)}
    words: set[str] = set()
    for number, slip in enumerate(draw.SLIPS):
        shared, *latent = draw.family(number)
        mine = {skill.word for skill in latent}
        assert shared.name == "sum"
        assert len(mine) == draw.LATENT
        assert not mine & packaged
        assert {skill.slip for skill in latent} == {slip}
        rates = np.array([skill.propensity for skill in latent])
        assert draw.RATES[0] <= rates.min()
        assert rates.max() <= draw.RATES[1]
        words |= mine
    assert len(words) > 2 * draw.LATENT, "families are drawn apart from each other"


def test_the_designed_policy_is_a_distribution_whose_right_share_is_the_base_rate(draw: ModuleType) -> None:
    for number, slip in enumerate(draw.SLIPS):
        for skill in draw.family(number)[1:6]:
            prompt = skill.strata("train")[0][0][1]
            texts = skill.completions(prompt)
            assert sum(texts.values()) == pytest.approx(1)
            right = sum(p for text, p in texts.items() if text.split("=")[1] == skill.answer(prompt))
            lucky = (1 - skill.propensity) * slip / 8  # at most: a wrong strategy that slips into the right answer
            assert skill.base_success - 1e-9 <= right <= skill.base_success + lucky + 1e-9
            assert (len(texts) == 6) == (slip == 0)


def test_worlds_hold_their_skills_in_proportion_and_test_apart(draw: ModuleType) -> None:
    means = []
    for number in range(len(draw.SLIPS)):
        for index in range(4):
            drawn = draw.world(number, index)
            means.append(drawn.base_mean)
            train, test = draw.problems(drawn, "train", 500), draw.problems(drawn, "test", 200)
            assert len({row["prompt"] for row in train}) == 500
            assert len({row["id"] for row in train}) == 500
            assert all(is_held_out(row["prompt"].split()[1].rstrip(":")) for row in test)
            assert not any(is_held_out(row["prompt"].split()[1].rstrip(":")) for row in train)
            skills = {skill.name: skill for skill in drawn.skills}
            counts = Counter(row["skill"] for row in train)
            for name, slots in zip(skills, drawn.slots, strict=True):
                assert counts[name] == pytest.approx(500 * slots / sum(drawn.slots), abs=1.01)
            assert all(skills[row["skill"]].answer(row["prompt"]) == row["answer"] for row in train + test)
            assert draw.problems(drawn, "train", 500) == train
    assert max(means) <= draw.LEARNABLE
    assert min(means) < 0.3 < max(means)


@pytest.mark.trl
@pytest.mark.slow
def test_a_run_is_the_real_trainers_on_a_policy_made_here(
    draw: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import run

    draw.make_policy(1, tmp_path / "policy-1", steps=3)
    drawn = draw.world(1, 0)
    draw.write_problems(drawn, tmp_path / drawn.name)
    monkeypatch.setitem(run.ARMS, "dopr", run.Arm(strategy="dopr", rollouts=10, learning_rate=1e-4))
    stored = run.run_job("dopr", drawn, tmp_path)
    curve = stored["curve"]
    assert curve[0][0] == 0
    assert 10 <= curve[-1][0] <= 34
    assert all(0 <= row[3] <= 1 for row in curve)
    assert json.loads(json.dumps(stored)) == stored


def test_the_page_is_that_of_the_stored_runs(draw: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import page
    import run

    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    store = run.load_store()
    page.write(store)
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "results" / "drawn_worlds.md").read_text()
    some = {key: value for key, value in store.items() if not key.startswith("1.2 | dopr")}
    page.write(some)
    text = (tmp_path / "page.md").read_text()
    assert "**Not complete yet**: 1.2" in text
    assert "\n| 1.2 |" not in text
    assert "\n| 1.1 |" in text
