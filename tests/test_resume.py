"""Resume through the real trainer: wherever it was stopped, a run ends in the very same parameters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import RunError
from dopr.runlog import read_events

pytest.importorskip("trl", reason="TRL is not installed")
import torch
from datasets import Dataset

from dopr.selection import STRATEGIES
from dopr.train import checkpoint as files
from dopr.train.state import STATE_FILE, load_state, save_state
from trl_kit import even_first_byte, parameters, pool, random_policy, rounds, trainer, two_processes

pytestmark = pytest.mark.trl


def rarely_right(completions: list[str], **_: Any) -> list[float]:
    """One completion in eight, so that there is something to search for."""
    return [float(bool(c) and ord(c[0]) % 8 == 0) for c in completions]


def seldom_right(completions: list[str], **_: Any) -> list[float]:
    """One completion in 24, so that most searches are in vain."""
    return [float(bool(c) and ord(c[0]) % 24 == 0) for c in completions]


#: name -> settings, rounds in an epoch (of 4 candidates each), updates to run
GRIDS: dict[str, tuple[dict[str, Any], int, int]] = {
    "an update per round, three epochs": ({}, 2, 6),
    "accumulation over two rounds, a ragged one at the end of the epoch": (
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "steps_per_generation": 2}, 3, 6,
    ),
    "accumulation across windows": (
        {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "steps_per_generation": 2}, 4, 6,
    ),
    "two updates per round": ({"gradient_accumulation_steps": 2, "steps_per_generation": 4,
                               "per_device_train_batch_size": 2}, 2, 6),
    "three iterations over each round": ({"num_iterations": 3}, 2, 8),
    "iterations, a reference policy and plain batches": (
        {"num_iterations": 2, "beta": 0.05, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2,
         "dopr_strategy": "uniform", "steps_per_generation": 4}, 3, 6,
    ),
    "a reference policy that follows": (
        {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5}, 4, 5,
    ),
    # Completions of one token, or the policy would hardly repeat a failure, and not search.
    "a search": ({"dopr_options": {"clusters": 3, "base_search": False}, "dopr_chunk": 2, "reward": rarely_right, "max_completion_length": 1}, 4, 5),
    "searches in vain, and then of the base policy": (
        {"dopr_options": {"clusters": 1, "search_depth": 1}, "dopr_chunk": 2, "reward": seldom_right, "learning_rate": 0.03,
         "max_completion_length": 1}, 4, 8,
    ),
    "replay updates": ({"dopr_options": {"clusters": 6}, "dopr_replay_updates": 2, "dopr_chunk": 2}, 4, 9),
    "replay updates, two updates per round": (
        {"dopr_options": {"clusters": 6}, "dopr_replay_updates": 1, "gradient_accumulation_steps": 2,
         "steps_per_generation": 4, "per_device_train_batch_size": 2, "beta": 0.05}, 4, 8,
    ),
    "dropped groups and refills": ({"dopr_strategy": "dapo", "per_device_train_batch_size": 8}, 5, 5),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_a_run_stopped_after_any_update_ends_as_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    settings, per_epoch, steps = GRIDS[name]
    settings = {
        "data": pool(4 * per_epoch), "dopr_candidates": 4, "max_steps": steps, "save_strategy": "steps", "save_steps": 1,
        "max_completion_length": 4, **settings,
    }  # fmt: skip
    whole = trainer(tmp_path / "whole", **settings)
    whole.train()
    inside = 0
    for step in range(1, steps):
        checkpoint = tmp_path / "whole" / "out" / f"checkpoint-{step}"
        inside += (checkpoint / "dopr_window_0.safetensors").exists()
        again = trainer(tmp_path / f"{step}", **settings | {"save_strategy": "no"}, policy=random_policy())
        again.train(resume_from_checkpoint=str(checkpoint))
        tail = rounds(tmp_path / f"{step}")
        assert tail == rounds(tmp_path / "whole")[len(rounds(tmp_path / "whole")) - len(tail) :]
        assert parameters(again) == parameters(whole)
        assert again.spent.rollouts == whole.spent.rollouts
        assert again._step == whole._step
    used = sum(
        pick["from_base"]
        for e in read_events(tmp_path / "whole" / "out")
        if e["kind"] == "round"
        for pick in e["picks"]
    )
    assert (used > 0) == ("base" in name)
    assert bool(inside) == ("window" in name or "updates per" in name or "iterations" in name)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_resumes_exactly(tmp_path: Path, strategy: str) -> None:
    rows = [
        {"prompt": f"q{i}: ", "answer": "a", "id": f"p{i}", "skill": "ab"[i % 2], "difficulty": i % 5}
        for i in range(24)
    ]
    settings: dict[str, Any] = {
        "data": Dataset.from_list(rows), "dopr_strategy": strategy, "dopr_candidates": 8, "max_steps": 4,
        "per_device_train_batch_size": 8, "max_completion_length": 3, "save_strategy": "steps", "save_steps": 2,
    }  # fmt: skip
    whole = trainer(tmp_path / "a", **settings)
    whole.train()
    again = trainer(tmp_path / "b", **settings, policy=random_policy())
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "out" / "checkpoint-2"))
    assert rounds(tmp_path / "b") == rounds(tmp_path / "a")[2:]
    assert parameters(again) == parameters(whole)


TWO_PROCESSES = """
import hashlib, json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from trl_kit import parameters, pool, rounds, trainer
folder, rank = Path(sys.argv[2]), os.environ["RANK"]
settings = dict(data=pool(16), dopr_candidates=4, per_device_train_batch_size=2, gradient_accumulation_steps=2,
                steps_per_generation=4, num_iterations=2, max_steps=8, max_completion_length=4, num_generations=4,
                save_strategy="steps", save_steps=1)
whole = trainer(folder / "whole", **settings)
whole.train()
found = {"processes": whole.accelerator.num_processes, "whole": parameters(whole), "resumed": []}
for step in (1, 4, 7):
    again = trainer(folder / str(step), **settings | {"save_strategy": "no"})
    again.train(resume_from_checkpoint=str(folder / "whole" / "out" / f"checkpoint-{step}"))
    found["resumed"].append(parameters(again))
    if rank == "0":
        tail = rounds(folder / str(step))
        assert tail == rounds(folder / "whole")[len(rounds(folder / "whole")) - len(tail):], step
(folder / f"rank{rank}.json").write_text(json.dumps(found))
whole.accelerator.wait_for_everyone()  # a process that leaves first takes gloo's sockets with it
whole.accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_resume_exactly_inside_and_between_windows(tmp_path: Path) -> None:
    first, second = two_processes(tmp_path, TWO_PROCESSES)
    assert first == second
    assert first["processes"] == 2
    assert first["resumed"] == [first["whole"]] * 3
    assert sorted(p.name for p in (tmp_path / "whole" / "out" / "checkpoint-1").glob("dopr_window*")) == [
        "dopr_window_0.safetensors", "dopr_window_1.safetensors"
    ]  # fmt: skip


def test_resuming_continues_the_same_log_and_watches(tmp_path: Path) -> None:
    def wrong(completions: list[str], **_: Any) -> list[float]:
        return [0.0] * len(completions)

    settings: dict[str, Any] = {"reward": wrong, "dopr_warn_constant": 3, "dopr_stop_constant": 10, "dopr_wrong_cap": 4}
    first = trainer(tmp_path, **settings, max_steps=5, save_strategy="steps", save_steps=2)
    first.train()
    second = trainer(tmp_path, **settings, max_steps=50, policy=random_policy())
    second.train(resume_from_checkpoint=True)
    events = read_events(tmp_path / "out")
    assert [e["round"] for e in events if e["kind"] == "round"] == list(range(1, 11))  # round 5 was repeated
    assert [e["round"] for e in events if e["kind"] == "warning"] == [3, 6, 10]
    assert second.stop_reason


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints after updates 2, 4 and 6; 2 and 6 lie inside a window of four updates."""
    folder = tmp_path_factory.mktemp("checkpointed")
    trainer(folder, max_steps=6, num_iterations=4, save_strategy="steps", save_steps=2).train()
    return folder


DAMAGE = {
    "half-written": lambda c: files.unseal(c),
    "truncated weights": lambda c: (c / "model.safetensors").write_bytes((c / "model.safetensors").read_bytes()[:5000]),
    "a flipped bit in the state": lambda c: flip(c / STATE_FILE),
    "a flipped bit in the optimizer": lambda c: flip(c / "optimizer.pt"),
    "a window lost": lambda c: (c / "dopr_window_0.safetensors").unlink(),
    "a broken seal": lambda c: (c / files.SEAL).write_text("{"),
    "a seal of the future": lambda c: (c / files.SEAL).write_text('{"version": 99, "files": {}}'),
    "an empty directory": lambda c: [p.unlink() for p in c.iterdir()],
}


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_skipped(
    checkpointed: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(checkpointed / "out", tmp_path / "out")
    folder = tmp_path / "out"
    DAMAGE[damage](folder / "checkpoint-6")
    found, skipped = files.last_complete(folder)
    assert found == folder / "checkpoint-4"
    assert len(skipped) == 1
    assert skipped[0].startswith("checkpoint-6: ")
    t = trainer(tmp_path, max_steps=8, num_iterations=4)
    with pytest.raises(RunError, match="checkpoint-6 cannot be resumed from"):
        t.train(resume_from_checkpoint=str(folder / "checkpoint-6"))
    t.train(resume_from_checkpoint=True)
    assert "Skipped checkpoint-6" in caplog.text
    assert [r[0] for r in rounds(tmp_path)] == [1, 2]


def test_without_a_complete_checkpoint_nothing_is_touched(checkpointed: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpointed / "out", tmp_path / "out")
    for step in (2, 4, 6):
        files.unseal(tmp_path / "out" / f"checkpoint-{step}")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    t = trainer(tmp_path, max_steps=8, num_iterations=4)
    with pytest.raises(RunError, match=r"no complete checkpoint .*checkpoint-6: it was not written to the end"):
        t.train(resume_from_checkpoint=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 2e-3}, "learning_rate: 0.001 then, 0.002 now"),
        ({"data": pool(41)}, "data: '40 prompts"),
        ({"num_iterations": 2}, "num_iterations: 4 then, 2 now"),
        ({"policy": random_policy(1)}, "model: "),
        ({"seed": 1}, "seed: 42 then, 1 now"),
    ],
    ids=str,
)
def test_a_changed_job_is_refused_with_the_difference_unless_forced(
    checkpointed: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    shutil.copytree(checkpointed / "out", tmp_path / "out")
    settings = {"max_steps": 8, "num_iterations": 4} | change
    with pytest.raises(RunError, match="belongs to a run with other") as caught:
        trainer(tmp_path, **settings).train(resume_from_checkpoint=True)
    assert words in str(caught.value)
    forced = trainer(tmp_path, **settings, dopr_force_resume=True)
    forced.train(resume_from_checkpoint=True)
    assert forced.state.global_step == 8


def test_old_checkpoints_go_only_after_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standing: list[list[str]] = []
    seal = files.seal

    def noting(directory: Path) -> None:
        standing.append([p.name for p in files.checkpoints(directory.parent) if files.flaw(p) is None])
        seal(directory)

    monkeypatch.setattr(files, "seal", noting)
    trainer(tmp_path, max_steps=5, save_strategy="steps", save_steps=1, save_total_limit=1).train()
    assert standing == [[], *([f"checkpoint-{i}"] for i in range(1, 5))]
    assert [p.name for p in files.checkpoints(tmp_path / "out")] == ["checkpoint-5"]


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5])
def test_as_many_checkpoints_stay_as_were_asked_for(tmp_path: Path, keep: int) -> None:
    for step in range(1, 9):
        newest = tmp_path / f"checkpoint-{step}"
        newest.mkdir()
        files.seal(newest)
        files.prune(tmp_path, newest, keep)
        assert [p.name for p in files.checkpoints(tmp_path)] == [
            f"checkpoint-{s}" for s in range(max(1, step - keep + 1), step + 1)
        ]


def test_nothing_of_ours_is_pickled_and_the_rest_is_read_by_the_restricted_unpickler(
    checkpointed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``weights_only`` keeps torch from running what a forged optimizer.pt or rng_state.pth may hold."""
    import pickle

    shutil.copytree(checkpointed / "out", tmp_path / "out")
    calls: list[bool] = []
    load = torch.load

    def noting(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs.get("weights_only") is True)
        return load(*args, **kwargs)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", noting)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    trainer(tmp_path, max_steps=8, num_iterations=4).train(resume_from_checkpoint=True)
    assert calls
    assert all(calls)


def test_state_of_another_version_is_refused(checkpointed: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpointed / "out", tmp_path / "out")
    path = tmp_path / "out" / "checkpoint-6" / STATE_FILE
    save_state(path, load_state(path) | {"version": 99})
    files.seal(path.parent)
    with pytest.raises(RunError, match="state of version 99"):
        trainer(tmp_path, max_steps=8, num_iterations=4).train(resume_from_checkpoint=True)
    save_state(path, {"version": 4, "job": {}})
    files.seal(path.parent)
    with pytest.raises(RunError, match="not the state of such a run"):
        trainer(tmp_path, max_steps=8, num_iterations=4, dopr_force_resume=True).train(resume_from_checkpoint=True)


def test_a_window_survives_its_file(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(4, 3)
    window = [{"a": base[:2], "n": torch.tensor(7), "old": None}, {"a": base[2:], "n": torch.tensor(7), "old": None}]
    files.save_window(tmp_path / "w", window)
    back = files.load_window(tmp_path / "w", "cpu")
    assert back is not None
    for old, new in zip(window, back, strict=True):
        assert old.keys() == new.keys()
        assert new["old"] is None
        assert torch.equal(old["a"], new["a"])
        assert new["n"].shape == ()
    files.save_window(tmp_path / "v", [{"a": base, "pixels": ["not a tensor"]}])
    assert files.load_window(tmp_path / "v", "cpu") is None
    for cut in range(0, (tmp_path / "w").stat().st_size - 1, 17):
        (tmp_path / "cut").write_bytes((tmp_path / "w").read_bytes()[:cut])
        with pytest.raises(RunError, match="cannot be read as a generation window"):
            files.load_window(tmp_path / "cut", "cpu")


def test_counts_of_rewards_go_on(tmp_path: Path) -> None:
    from dopr.tasks.guard import GuardedReward

    def sometimes(completions: list[str], **_: Any) -> list[float | None]:
        return [None if i == 0 else r for i, r in enumerate(even_first_byte(completions))]

    settings: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "dopr_wrong_cap": 4,
                                "dopr_right_cap": 4}  # fmt: skip
    whole = GuardedReward(sometimes, timeout=10)
    trainer(tmp_path, reward=whole, **settings).train()
    half = GuardedReward(sometimes, timeout=10)
    again = trainer(tmp_path, reward=half, **settings, policy=random_policy())
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert half.counts == whole.counts
    assert half.counts["unscorable"] == 6
    assert json.loads(json.dumps(again._reward_counts())) == {"0": whole.counts}
    assert np.isfinite(again.state.log_history[-1]["train_loss"])
