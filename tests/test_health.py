"""Each early warning, provoked: through the real trainer where a second or two is enough, else on signs made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dopr.runlog import read_events
from dopr.train.health import HealthWatch, Signs
from dopr.train.watch import ConstantWatch, Verdict

FINE = Signs(rollouts=8, unscorable=0, success=0.5, mixed=1.0, length=20.0, truncated=0.05, entropy=1.0)


def watch(**settings: Any) -> HealthWatch:
    return HealthWatch(**{"stop_unscorable": 0.9, "stop_skipped": 5} | settings)


def see(w: HealthWatch, signs: Signs, rounds: int) -> list[Verdict]:
    return [v for _ in range(rounds) for v in w.see_round(signs)]


def test_a_sound_run_is_left_in_peace() -> None:
    w = watch()
    for i in range(2000):
        solved = replace(FINE, entropy=1.0 / (1 + i), success=min(1.0, 0.3 + i / 200), mixed=0.6, length=20 + i / 50)
        assert w.see_round(solved) == []
        assert w.see_update(0.5 + i % 3, finite_loss=True, mixed=True, rate=1e-5) == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"unscorable": 3}, "unscorable", "38% of the rollouts in the last 8 rounds"),
        ({"truncated": 0.95, "success": 0.1}, "truncated", "--max-completion-length"),
        ({"entropy": 0.01, "success": 0.1, "mixed": 0.0}, "entropy", "token entropy has fallen from 1 to"),
        ({"length": 70.0, "truncated": 0.6}, "length", "Completions have grown from 20 to"),
    ],
)
def test_each_sign_warns_with_cause_and_remedy_and_then_at_every_doubling(
    change: dict[str, Any], code: str, words: str
) -> None:
    early = code in ("unscorable", "truncated")
    w = watch()
    assert see(w, FINE, 0 if early else 32) == []
    found = see(w, replace(FINE, **change), 200)
    assert {v.code for v in found} == {code}
    assert not any(v.stop for v in found)
    assert words in " ".join(found[0].text.split())
    assert 3 <= len(found) <= 6
    quiet = watch(quiet=True)
    assert see(quiet, FINE, 32) + see(quiet, replace(FINE, **change), 200) == []


@pytest.mark.parametrize(
    "change",
    [
        {"truncated": 1.0, "success": 0.9},  # cut off, but right: short answers need no end
        {"entropy": 0.001, "success": 0.6, "mixed": 0.0},  # certain because it is mostly right
        {"entropy": 0.01, "success": 0.2, "mixed": 0.9},  # certain about most tokens, still of two minds
        {"length": 70.0, "truncated": 0.1},  # longer, with room
        {"unscorable": 1},  # one in eight
        {"success": None, "mixed": 0.0, "entropy": None, "truncated": None},
    ],
)
def test_what_looks_alike_but_is_fine_stays_silent(change: dict[str, Any]) -> None:
    w = watch()
    assert see(w, FINE, 32) + see(w, replace(FINE, **change), 100) == []


def test_mostly_unscorable_stops_and_a_resumed_run_gets_its_chance() -> None:
    w = watch()
    assert see(w, replace(FINE, unscorable=8), 8)[-1].stop
    assert see(w, FINE, 7) == []
    assert see(watch(stop_unscorable=0.0), replace(FINE, unscorable=8), 100)[-1].stop is False


def test_gradient_spikes_zero_gradients_and_skips() -> None:
    w = watch()
    for _ in range(20):
        assert w.see_update(1.0, finite_loss=True, mixed=True, rate=1e-5) == []
    assert w.see_update(50.0, finite_loss=True, mixed=True, rate=1e-5) == []  # one is nothing
    w.see_update(50.0, finite_loss=True, mixed=True, rate=1e-5)
    see(w, FINE, 3)
    (spike,) = w.see_update(60.0, finite_loss=True, mixed=True, rate=1e-5)
    assert spike.code == "gradient_spikes"
    assert "(now 60)" in spike.text
    assert [
        v
        for _ in range(40)
        for n in (1.0, 0.02)
        for v in watch().see_update(n, finite_loss=True, mixed=n > 0.1, rate=1)
    ] == []
    zero = [v for _ in range(10) for v in w.see_update(0.0, finite_loss=True, mixed=True, rate=1e-5)]
    assert zero[0].code == "zero_gradient"
    assert [v for _ in range(50) for v in watch().see_update(None, finite_loss=True, mixed=False, rate=1e-5)] == []
    broken = [v for _ in range(5) for v in w.see_update(float("inf"), finite_loss=True, mixed=True, rate=1e-5)]
    assert [v.stop for v in broken] == [False, False, False, True]  # the 1st, 2nd, 4th, and the end
    assert broken[-1].code == "skipped"


def test_the_state_goes_on_where_it_was() -> None:
    def feed(w: HealthWatch, start: int, stop: int) -> list[str]:
        out = []
        for i in range(start, stop):
            out += [v.text for v in w.see_round(replace(FINE, unscorable=i % 5, truncated=i / 100, success=0.2))]
            out += [
                v.text for v in w.see_update(float(1 + 40 * (i % 7 == 0)), finite_loss=i % 9 > 0, mixed=True, rate=0.1)
            ]
        return out

    whole, first, second = watch(), watch(), watch()
    expected = feed(whole, 0, 120)
    got = feed(first, 0, 61)
    second.load_state_dict(first.state_dict())
    assert got + feed(second, 61, 120) == expected
    assert len(expected) > 8
    assert second.state_dict() == whole.state_dict()


# -- through the trainer -------------------------------------------------------------------------------------------


def warned(folder: Path) -> dict[str, str]:
    """First text of each warning."""
    found: dict[str, str] = {}
    for event in read_events(folder / "out"):
        if event["kind"] == "warning":
            found.setdefault(event["code"], event["text"])
    return found


def real(tmp_path: Path, **settings: Any) -> Any:
    pytest.importorskip("trl", reason="TRL is not installed")
    from trl_kit import trainer

    group = settings.get("num_generations", 4)
    return trainer(tmp_path, **{"dopr_replay": 0, "dopr_wrong_cap": group, "dopr_right_cap": group} | settings)


@pytest.mark.trl
def test_completions_that_are_all_cut_off_are_named(tmp_path: Path) -> None:
    real(
        tmp_path, max_steps=17, reward=lambda completions, **_: [0.1 * (i == 0) for i in range(len(completions))]
    ).train()
    assert "100% of the completions in the last 16 rounds were cut off" in warned(tmp_path)["truncated"]


@pytest.mark.trl
def test_a_gradient_that_is_always_zero_is_named(tmp_path: Path) -> None:
    # No completion of the random policy ends, so all of them are masked.
    real(tmp_path, max_steps=14, mask_truncated_completions=True).train()
    assert "rewards differ within the groups" in warned(tmp_path)["zero_gradient"]


@pytest.mark.trl
def test_gradient_spikes_are_named(tmp_path: Path) -> None:
    t = real(tmp_path, max_steps=30, num_generations=8, per_device_train_batch_size=8)
    compute = t._compute_loss
    t._compute_loss = lambda model, inputs: compute(model, inputs) * (1e4 if t.state.global_step > 22 else 1.0)
    t.train()
    assert "training is unstable" in warned(tmp_path)["gradient_spikes"]


@pytest.mark.slow
@pytest.mark.trl
def test_a_collapsing_policy_is_named(tmp_path: Path) -> None:
    def likes_one_letter(completions: list[str], **_: Any) -> list[float]:
        return [0.1 * c.count("a") / max(1, len(c)) for c in completions]

    real(tmp_path, max_steps=120, reward=likes_one_letter, learning_rate=2e-2, num_generations=8,
         per_device_train_batch_size=8, max_completion_length=4).train()  # fmt: skip
    text = warned(tmp_path)["entropy"]
    assert "repeats itself and explores no more" in text


@pytest.mark.slow
@pytest.mark.trl
def test_exploding_length_is_named(tmp_path: Path) -> None:
    import torch

    from trl_kit import random_policy

    policy = random_policy()
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    for _ in range(60):  # teach it to end: short completions to start from
        ids = torch.randint(0, 250, (16, 8))
        loss = -policy(ids).logits.log_softmax(-1)[:, :, 257].clamp(max=-0.7).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real(
        tmp_path, max_steps=50, policy=policy, learning_rate=1e-3, num_generations=8, per_device_train_batch_size=8,
        max_completion_length=24, reward=lambda completion_ids, **_: [len(c) / 24 for c in completion_ids],
    ).train()  # fmt: skip
    assert "now hit the length limit" in warned(tmp_path)["length"]


def test_another_limit_of_constant_rounds_holds_from_the_resume_on() -> None:
    for before, after, warns_at in ((0, 16, 16), (64, 16, 16), (16, 64, 64), (16, 0, None)):
        watch, resumed = ConstantWatch(before, 0), ConstantWatch(after, 0)
        watch.see(["all_wrong"])
        resumed.load_state_dict(watch.state_dict())
        warned = [n for n in range(2, 100) if resumed.see(["all_wrong"]) is not None]
        assert warned[:1] == ([] if warns_at is None else [warns_at])
    watch, resumed = ConstantWatch(4, 0), ConstantWatch(4, 0)
    for _ in range(5):
        watch.see(["all_wrong"])
    resumed.load_state_dict(watch.state_dict())
    assert [n for n in range(6, 20) if resumed.see(["all_wrong"]) is not None] == [
        8,
        16,
    ]  # the same limit: each doubling
