"""Two processes over gloo choose, learn and update alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is not installed")
from trl_kit import two_processes

SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from trl_kit import parameters, trainer
folder = Path(sys.argv[2])
strategy, rows, settings = sys.argv[3], int(sys.argv[4]), json.loads(sys.argv[5])
t = trainer(folder, per_device_train_batch_size=rows, max_steps=8, dopr_strategy=strategy, **settings)
t.train()
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps({
    "processes": t.accelerator.num_processes, "rollouts": t.spent.rollouts, "tokens": t.spent.tokens,
    "parameters": parameters(t), "picks": t.last_round["picks"],
    "memory": [[s.start, *s.completion.tolist()] for s in t.selector.memory.draw(99, t.selector.rng)],
}))
t.accelerator.wait_for_everyone()  # a process that leaves first takes gloo's sockets with it
t.accelerator.end_training()
"""


@pytest.mark.slow
@pytest.mark.trl
@pytest.mark.parametrize(
    ("strategy", "rows", "settings"),
    [
        ("dopr", 2, {}),
        ("dopr", 2, {"dopr_chunk": 2, "max_completion_length": 1}),
        ("speed", 2, {}),
        ("knapsack", 4, {}),
    ],
)
def test_two_processes_stay_equal_and_share_every_group(
    tmp_path: Path, strategy: str, rows: int, settings: dict[str, int]
) -> None:
    first, second = two_processes(tmp_path, SCRIPT, strategy, str(rows), json.dumps(settings))
    assert first == second
    assert first["processes"] == 2
    assert bool(first["memory"]) == (strategy == "dopr")
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert [e["round"] for e in events] == list(range(1, 9))  # one process writes, once
    least = {"dopr": settings.get("dopr_chunk", 4), "speed": 2, "knapsack": 2}[strategy]
    groups = [p for e in events for p in e["picks"]]
    assert all(len(p["rewards"]) == p["rollouts"] >= least for p in groups)
    # A search draws one at a time, or one for each process, up to three times the group size of four.
    searched = {p["searched"] for p in groups}
    assert searched <= {0, 2, 4, 6, 8, 10}
    assert 0 in searched
    assert (max(searched) > 0) == bool(settings)
    assert events[-1]["spent"]["rollouts"] == first["rollouts"]
