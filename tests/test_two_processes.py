"""Two processes over gloo choose, learn and update alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from trl_kit import trainer
folder = Path(sys.argv[2])
t = trainer(folder, per_device_train_batch_size=int(sys.argv[4]), max_steps=8, dopr_strategy=sys.argv[3])
t.train()
parameters = b"".join(p.detach().numpy().tobytes() for p in t.model.parameters())
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps({
    "processes": t.accelerator.num_processes, "rollouts": t.spent.rollouts, "tokens": t.spent.tokens,
    "parameters": hashlib.sha256(parameters).hexdigest(), "picks": t.last_round["picks"],
    "memory": [s.completion.tolist() for s in t.selector.memory.draw(99, t.selector.rng)],
}))
t.accelerator.wait_for_everyone()  # a process that leaves first takes gloo's sockets with it
t.accelerator.end_training()
"""


@pytest.mark.slow
@pytest.mark.trl
@pytest.mark.parametrize(("strategy", "rows"), [("dopr", 2), ("speed", 2), ("knapsack", 4)])
def test_two_processes_stay_equal_and_share_every_group(tmp_path: Path, strategy: str, rows: int) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29517"]
    done = subprocess.run(
        [*command, str(tmp_path / "run.py"), str(Path(__file__).parent), str(tmp_path), strategy, str(rows)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["processes"] == 2
    assert bool(first["memory"]) == (strategy == "dopr")
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert [e["round"] for e in events] == list(range(1, 9))  # one process writes, once
    least = {"dopr": 4, "speed": 2, "knapsack": 2}[strategy]
    assert all(len(p["rewards"]) == p["rollouts"] >= least for e in events for p in e["picks"])
    assert events[-1]["spent"]["rollouts"] == first["rollouts"]
