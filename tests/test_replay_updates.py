"""Updates from replayed successes alone, and replay that cannot be dealt evenly, through the real trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.trl
def test_replay_updates_follow_each_round_without_rollouts(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.runlog import read_events
    from trl_kit import trainer

    def always(completions: list[str], **_: Any) -> list[float]:
        return [1.0] * len(completions)

    for n, rounds in ((0, 6), (1, 3), (2, 2), (5, 1)):
        t = trainer(tmp_path / str(n), reward=always, dopr_replay=4, dopr_replay_updates=n, max_steps=6)
        t.train()
        assert len(read_events(tmp_path / str(n) / "out")) == rounds
        assert (t.spent.updates, t.spent.rollouts) == (6, 4 * rounds)
    few = trainer(tmp_path / "few", reward=always, dopr_replay=8, dopr_replay_updates=1, max_steps=6)
    few.train()  # 4 successes after the first round are too few to be repeated alone, 8 after the second are not
    assert [e["step"] for e in read_events(tmp_path / "few" / "out")] == [0, 1, 3, 5]
    nothing = trainer(
        tmp_path / "wrong", reward=lambda completions, **_: [0.0] * len(completions), dopr_replay_updates=3
    )
    nothing.train()
    assert len(read_events(tmp_path / "wrong" / "out")) == 6  # with nothing to replay there is no update to make


@pytest.mark.trl
def test_replay_that_cannot_be_dealt_evenly_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from trl_kit import trainer

    grid = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1, "max_steps": 1}
    trainer(tmp_path / "few", dopr_replay=3, **grid)
    assert "none would be replayed. Set dopr_replay to a multiple of 4." in caplog.text
    caplog.clear()
    trainer(tmp_path / "enough", dopr_replay=4, **grid)
    assert caplog.text == ""
