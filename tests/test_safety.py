"""Nothing runs, leaves the machine or lands where it was not asked to."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dopr
from dopr.errors import ConfigError, DataError, DoprError, ModelError, RunError

SOURCE = Path(dopr.__file__).parent
TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS.parent / "benchmarks"))


class Marker:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


# -- what the source may not hold ----------------------------------------------------------------------------------

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "torch.load", "yaml.load", "os.system",
                   "os.popen", "marshal.loads", "shelve.open", "tempfile.mktemp", "joblib.load", "dill.load"}  # fmt: skip
#: The child process of the code verifier runs the policy's programs: that is its task, in a jail.
JAILED = {"code_harness.py", "jail.py"}


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_the_source_neither_unpickles_nor_evaluates_nor_trusts_remote_code() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if dotted(node.func) in FORBIDDEN_CALLS and path.name not in JAILED:
                found.append(f"{path.name}:{node.lineno} {dotted(node.func)}")
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg in ("trust_remote_code", "allow_pickle", "shell") and value is not False:
                    found.append(f"{path.name}:{node.lineno} {keyword.arg}={value}")
    assert found == []


# -- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.trl
def test_code_that_a_model_brings_is_not_run(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from dopr.policy import load_policy

    (tmp_path / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass Model: ...\n"
    )
    auto = {name: "evil.Model" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": auto, "architectures": ["Model"]})
    )
    with pytest.raises(ModelError):
        load_policy(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.trl
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_forged_checkpoint_runs_nothing(tmp_path: Path, name: str) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.train import checkpoint
    from trl_kit import trainer

    trainer(tmp_path, max_steps=3, save_strategy="steps", save_steps=2).train()
    place = tmp_path / "out" / "checkpoint-2"
    (place / name).write_bytes(pickle.dumps(Marker(tmp_path / "ran"), protocol=2))
    checkpoint.seal(place)
    with pytest.raises(RunError, match="holds something other than data"):
        trainer(tmp_path, max_steps=4).train(resume_from_checkpoint=str(place))
    assert not (tmp_path / "ran").exists()


# -- network -------------------------------------------------------------------------------------------------------

WATCHED = """
import sys
asked = []
def hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and not isinstance(args[1], (str, bytes)):
        asked.append(f"{event} {args[1]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "http.client.connect"):
        asked.append(f"{event} {args[:2]}")
    else:
        return
    raise OSError("no network here")
sys.addaudithook(hook)
from pathlib import Path
from dopr.cli.main import cli
from dopr.tasks.tiny import tiny_policy_path
model = str(tiny_policy_path())
for arguments in (
    ["train", "--model", model, "--data", "p.jsonl", "--budget", "updates=2", "--output", "run"],
    ["train", "--resume", "run", "--budget", "updates=3"],
    ["eval", "--run", "run"],
    ["report", "run"],
):
    cli(arguments, standalone_mode=False)
sys.path.insert(0, sys.argv[1])
from trl_kit import trainer
trainer(Path("library"), max_steps=2, beta=0.01).train()
print("asked:", asked)
assert not asked, asked
"""


@pytest.mark.slow
@pytest.mark.trl
def test_local_paths_and_packaged_names_never_touch_the_network(tmp_path: Path) -> None:
    """With the hub on line and telemetry not opted out of: nothing is looked up, connected to or reported."""
    pytest.importorskip("trl", reason="TRL is not installed")
    rows = [{"question": f"{i} + 1 =", "answer": str(i + 1)} for i in range(30)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    left_out = ("CI", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK")
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(TESTS)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert "asked: []" in done.stdout


# -- paths ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    "../../outside",
    "/etc/passwd",
    "..",
    "a/b\\c",
    "con",
    "\x1b[2J",
    "<script>alert(1)</script>",
    "x" * 3000,
    "名前",
    "%00",
]


@pytest.mark.trl
@pytest.mark.slow
def test_ids_and_texts_of_problems_are_never_paths_or_markup(tmp_path: Path) -> None:
    kill_test = importlib.import_module("kill_test")
    rows = [{"id": name, "question": f"{name[:30]} 1 + 1 =", "answer": "2", "skill": name} for name in HOSTILE]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    kill_test.preload()
    log = tmp_path / "log"
    log.write_text("")
    before = sorted(tmp_path.parent.rglob("*"))
    old = os.umask(0o077)
    try:
        pid = kill_test.start(
            ["--data", str(tmp_path / "p.jsonl"), "--output", str(tmp_path / "in" / "run"), "--budget", "updates=12",
             "--save-every", "6", "--eval-problems", "2"], log, watched=tmp_path / "in",
        )  # fmt: skip
        code = kill_test.wait(pid)
    finally:
        os.umask(old)
    assert code == 0, log.read_text()
    run = tmp_path / "in" / "run"
    new = [p for p in sorted(tmp_path.parent.rglob("*")) if p not in before and not p.is_relative_to(run)]
    assert [p.name for p in new] == ["in", "log.operations"]
    picked = {p["id"] for e in kill_test.events(run) if e["kind"] == "round" for p in e["picks"]}
    assert picked <= set(HOSTILE)
    assert len(picked) > 3
    page = (run / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "\x1b" not in page + log.read_text()
    # What the user's umask keeps private stays private.
    assert {oct(p.stat().st_mode & 0o077) for p in [run, *run.rglob("*")]} == {"0o0"}
    assert not any(p.stat().st_mode & (stat.S_IXUSR | stat.S_ISUID) for p in run.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "name", ["world:../../etc/passwd", "world:/etc", "gym:../x", "gym:a.b.c", "../../etc/passwd\x00", "a/b/c"]
)
def test_names_of_worlds_and_tasks_do_not_reach_files(name: str) -> None:
    from dopr.tasks.problems import load_problems

    with pytest.raises((DataError, ConfigError)):
        load_problems(name)


def test_links_inside_a_checkpoint_folder_are_not_followed_out(tmp_path: Path) -> None:
    """Removing old checkpoints removes a link, not what it points to."""
    from dopr.train import checkpoint

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        checkpoint.seal(folder / f"checkpoint-{step}")
    shutil.rmtree(folder / "checkpoint-1")
    (folder / "checkpoint-1").symlink_to(outside)
    (folder / "checkpoint-x").mkdir()
    checkpoint.prune(folder, folder / "checkpoint-3", keep=1)
    assert (outside / "precious").exists()
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint-1", "checkpoint-3", "checkpoint-x"]


# -- fuzzing, a small helping of benchmarks/fuzz.py -----------------------------------------------------------------


@pytest.mark.trl
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_hostile_inputs_are_worked_with_or_refused() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    fuzz = importlib.import_module("fuzz")
    results = fuzz.run(1500, seed=7, say=lambda text: None)
    assert [text for r in results.values() for text in r["failures"]] == []
    assert sum(r["inputs"] for r in results.values()) > 1400
    assert issubclass(RunError, DoprError)
