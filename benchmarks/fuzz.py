"""Hostile input, much of it: whatever is read or judged either works or is refused with one of dopr's own errors.

Targets: problem files (JSON lines, JSON, CSV, Parquet), config files and settings, completions into verifiers, checkpoint
state, logs and run directories. An input fails the test if anything but a ``DoprError`` comes out, if it takes more than
ten seconds, or if something wrong is accepted: a problem without a prompt, a completion whose stated answer is not the
gold, a damaged checkpoint.

    python benchmarks/fuzz.py --inputs 110000 --write docs/results/fuzz.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from dopr.errors import DoprError, RunError

#: Share of the inputs that each target gets; verifiers with worker processes are slow, so they get fewer.
SHARES = {
    "problems": 30, "config": 20, "pairs": 8, "number": 10, "choice": 6, "exact": 3, "regex": 3, "world": 2, "math": 4,
    "state": 8, "window": 2, "seal": 2, "events": 5, "report": 0.1, "selector": 3,
}  # fmt: skip
SLOWEST = 10

_TEXTS = [
    "", " ", "\n", "\x00", "\ufeff", "\u202e", "\ud800", "é", "漢字", "🙂", "a" * 5000, "NaN", "null", "true", "-0", "1e999",
    "{{prompt}}", "{prompt}", "%s", "../../etc/passwd", "<script>alert(1)</script>", "'; DROP TABLE", "\\boxed{", "$", "$$",
    "####", "####7", "1,000", "0x10", "١٢", "½", "1/0", "9" * 400, "[" * 2000, '{"a":' * 500, "\r\n", "\u2028", "=1+1",
]  # fmt: skip


class WrongAcceptanceError(Exception):
    """Something that should have been refused was taken."""


def some_text(rng: random.Random) -> str:
    parts = [
        rng.choice(_TEXTS)
        if rng.random() < 0.4
        else "".join(chr(rng.randrange(32, 0x250)) for _ in range(rng.randrange(12)))
        for _ in range(rng.randrange(4))
    ]
    return "".join(parts)


def some_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(10 if depth < 3 else 7)
    if kind < 3:
        return some_text(rng)
    if kind == 3:
        return rng.choice([0, 1, -1, 2**63, -(2**70), 10**30])
    if kind == 4:
        return rng.choice([0.5, -0.0, 1e308, float("nan"), float("inf"), 1e-320])
    if kind in (5, 6):
        return rng.choice([None, True, False])
    if kind == 7:
        return [some_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {some_text(rng)[:20]: some_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """A few bytes changed, cut, doubled or swapped."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randrange(1, 40)]
        elif kind == 2:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(8)))
        elif kind == 3:
            out[at:at] = out[at : at + rng.randrange(30)]
        else:
            del out[at : len(out) if rng.random() < 0.3 else at + 1]
    return bytes(out)


# -- problem files -------------------------------------------------------------------------------------------------


def fuzz_problems(rng: random.Random, folder: Path) -> None:
    from dopr.tasks.problems import load_problems, to_rows

    names = [
        "question",
        "prompt",
        "problem",
        "answer",
        "solution",
        "id",
        "extra_info",
        "reward_model",
        "skill",
        some_text(rng),
    ]
    rows: list[Any] = [
        {
            name: some_value(rng) if rng.random() < 0.1 else f"{name} {rng.randrange(50)}"
            for name in rng.sample(names, rng.randrange(1, 6))
        }
        if rng.random() < 0.5
        else {"question": f"What is {rng.randrange(99)}?", "answer": str(rng.randrange(9))}
        for _ in range(rng.randrange(6))
    ]
    if rng.random() < 0.1:
        rows.append(some_value(rng))
    kind = rng.choice(
        [".jsonl", ".jsonl", ".json", ".csv", ".parquet"] if rng.random() < 0.2 else [".jsonl", ".json", ".csv"]
    )
    path = folder / f"p{kind}"
    if kind == ".csv":
        lines = [",".join(json.dumps(str(v)) for v in r.values()) for r in rows if isinstance(r, dict)]
        raw = "\n".join(["question,answer,id", *lines]).encode("utf-8", "surrogatepass")
    elif kind == ".parquet":
        raw = _parquet(rows)
    else:
        text = json.dumps(rows) if kind == ".json" else "\n".join(json.dumps(r) for r in rows)
        raw = text.encode("utf-8", "surrogatepass")
    path.write_bytes(mutated(rng, raw) if rng.random() < 0.35 else raw)
    needed = rng.random() < 0.8
    problems = load_problems(str(path), require_answer=needed, size=rng.choice([None, None, 1, 3]))
    if not problems:
        raise WrongAcceptanceError("no problems, and no error")
    if len({p.id for p in problems}) != len(problems):
        raise WrongAcceptanceError("two problems of one id")
    for p in problems:
        text = p.prompt if isinstance(p.prompt, str) else "".join(str(m["content"]) for m in p.prompt)
        if not text.strip() or not isinstance(p.id, str) or (needed and not (p.answer or "").strip()):
            raise WrongAcceptanceError(f"a problem without a prompt, id or answer: {p}")
        json.dumps(p.id).encode()
        text.encode()  # a lone surrogate would fail in the tokenizer
    to_rows(problems)


def _parquet(rows: list[Any]) -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    def clean(value: Any) -> str:
        return str(value).encode("utf-8", "replace").decode()

    good = [{clean(k): clean(v) for k, v in r.items()} for r in rows if isinstance(r, dict)]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(good or [{"question": "a", "answer": "1"}]), out)
    return out.getvalue()


# -- settings ------------------------------------------------------------------------------------------------------

_CONFIG = (
    "model: tiny\ndata: world:latent-strategy\nstrategy: dopr\nbudget: rollouts=400\nlearning_rate: 1e-4\ngroup_size: 8\n"
    "option: {volatility: within, ucb: 0.1}\nreward: [number, exact]\nreward_weight: [1.0, 0.5]\nseed: 3\nchat: false\n"
)


def fuzz_config(rng: random.Random, folder: Path) -> None:
    from dopr.config import EvalSettings, TrainSettings
    from dopr.config_layers import build, read_config_file

    kind = rng.choice([".yaml", ".yml", ".toml"])
    path = folder / f"c{kind}"
    if rng.random() < 0.5:
        raw = _CONFIG if kind != ".toml" else 'model = "tiny"\nseed = 3\n[trainer]\nbeta = 0.1\n'
        path.write_bytes(mutated(rng, raw.encode()))
        loaded: Any = read_config_file(str(path))
    else:
        fields = ["model", "seed", "size", "budget", "option", "reward", "reward_weight", "temperature", "trainer", "target",
                  "learning_rate", "lora", "save_every", "save_minutes", "stop_unscorable", "eval_samples", some_text(rng)]  # fmt: skip
        loaded = {rng.choice(fields): some_value(rng) for _ in range(rng.randrange(5))}
    settings = build(rng.choice([TrainSettings, EvalSettings]), loaded)
    if not (isinstance(settings.seed, int) and 0 <= settings.seed < 2**32):
        raise WrongAcceptanceError(f"seed {settings.seed!r}")
    if isinstance(settings, TrainSettings) and settings.temperature is not None and not settings.temperature > 0:
        raise WrongAcceptanceError(f"temperature {settings.temperature!r}")


def fuzz_pairs(rng: random.Random, folder: Path) -> None:
    from dopr.budget import Budget, Spent
    from dopr.config_layers import parse_pair

    text = some_text(rng)
    if rng.random() < 0.5:
        parse_pair(rng.choice(["", "a=", "b=1e-5,", "=", "c=[1, "]) + text)
        return
    unit = rng.choice(["rollouts", "tokens", "seconds", "updates", some_text(rng)])
    budget = Budget.parse(
        unit + rng.choice(["=", "", " = "]) + rng.choice(["100", "1e3", "-1", "0", "2k", "1.5M", text])
    )
    if not 0 < budget.limit < math.inf or budget.share(Spent(rollouts=1, tokens=1, seconds=1, updates=1)) <= 0:
        raise WrongAcceptanceError(f"budget {budget}")


# -- verifiers -----------------------------------------------------------------------------------------------------

_FILLER = [
    "So we get",
    "Let me think.",
    "First, 3 apples",
    "then 17 more",
    "\\frac{1}{2} of it",
    "which is",
    "Hence",
    "\n\n",
    "Wait,",
]


def _judge(name: str, completion: str, gold: Any, right: bool | None) -> None:
    from dopr.tasks.rewards import resolve_rewards

    if name not in _VERIFIERS:
        (_VERIFIERS[name],) = resolve_rewards([name], timeout=5.0)
    (reward,) = _VERIFIERS[name]([completion], answer=[gold])
    if reward is not None and not (isinstance(reward, float) and 0 <= reward <= 1):
        raise WrongAcceptanceError(f"{name} gave {reward!r}")
    if right is not None and reward is not None and (reward == 1.0) != right:
        raise WrongAcceptanceError(
            f"{name} gave {reward} for {completion!r} against {gold!r}, which is {'right' if right else 'wrong'}"
        )


_VERIFIERS: dict[str, Any] = {}


def _number(rng: random.Random) -> tuple[str, Fraction]:
    kind = rng.randrange(4)
    if kind == 0:
        n = rng.randrange(-(10**6), 10**6)
        return str(n), Fraction(n)
    if kind == 1:
        n = rng.randrange(1000, 10**9)
        return f"{n:,}", Fraction(n)
    if kind == 2:
        text = f"{rng.randrange(-999, 999)}.{rng.randrange(1, 10**4):04d}"
        return text, Fraction(text)
    n = rng.randrange(0, 100)
    return f"{n}.0", Fraction(n)


def fuzz_number(rng: random.Random, folder: Path) -> None:
    filler = " ".join(rng.sample(_FILLER, rng.randrange(len(_FILLER))))
    gold, value = _number(rng)
    if rng.random() < 0.5:
        _judge("number", filler + some_text(rng), rng.choice([gold, some_text(rng), 3, 2.5, None]), None)
        return
    said, meant = (gold, value) if rng.random() < 0.5 else _number(rng)
    _judge(
        "number",
        f"{filler} {rng.choice(['The answer is ', '= $', ''])}{said}{rng.choice(['', '.', ' dollars', '%'])}",
        gold,
        meant == value,
    )


def fuzz_math(rng: random.Random, folder: Path) -> None:
    filler = " ".join(rng.sample(_FILLER[:1] + _FILLER[1:2] + _FILLER[5:], rng.randrange(4)))
    gold, value = _number(rng)
    gold = gold.replace(",", "")
    roll = rng.random()
    if roll < 0.4:
        _judge("math", filler + some_text(rng), rng.choice([gold, some_text(rng), "\\frac{1}{2}"]), None)
        return
    said, meant = (gold, value) if roll < 0.7 else _number(rng)
    said = said.replace(",", "")
    frame = rng.choice(
        ["The answer is \\boxed{%s}.", "\\[ \\boxed{%s} \\]", "Thus $x = 5$ and the final answer is $\\boxed{%s}$."]
    )
    _judge("math", f"{filler} {frame % said}", gold, meant == value)


def fuzz_choice(rng: random.Random, folder: Path) -> None:
    gold, said = rng.choice("ABCDE"), rng.choice("ABCDE")
    if rng.random() < 0.5:
        _judge("choice", some_text(rng), rng.choice([gold, f"({gold})", some_text(rng)]), None)
    else:
        _judge("choice", f"{some_text(rng)}\nThe answer is ({said}).", gold, said == gold)


def fuzz_exact(rng: random.Random, folder: Path) -> None:
    gold, said = f"g{some_text(rng)}", some_text(rng)
    _judge("exact", said, gold, said.strip() == gold.strip())
    _judge("exact", f" {gold}\n", gold, True)


def fuzz_regex(rng: random.Random, folder: Path) -> None:
    pattern = rng.choice([r"<a>(.*?)</a>", r"= ?(\d+)", r"(yes|no)", r"\b\w+$"])
    _judge(
        f"regex:{pattern}",
        some_text(rng) + rng.choice(["<a>7</a>", "= 7", "yes", ""]),
        rng.choice(["7", "yes", some_text(rng)]),
        None,
    )


def fuzz_world(rng: random.Random, folder: Path) -> None:
    said = str(rng.randrange(100))
    gold = str(rng.randrange(100))
    _judge("world", f"{some_text(rng)}={said}", gold, said == gold)


# -- state, logs, runs ---------------------------------------------------------------------------------------------


def _state() -> dict[str, Any]:
    from dopr.selection import SelectorConfig, make_selector

    selector = make_selector("dopr", [f"p{i}" for i in range(20)], SelectorConfig(group_size=4, candidates=8))
    for _ in range(6):
        for pick in selector.ask():
            selector.tell(pick.prompt_id, [1.0, 0.0, None, 1.0])
    return {"version": 1, "selector": selector.state_dict(), "round": 6, "spent": {"rollouts": 24}, "job": {"seed": 0}}


def fuzz_state(rng: random.Random, folder: Path) -> None:
    from dopr.train.rundir import round_at, spent_at
    from dopr.train.state import STATE_FILE, load_state, save_state

    path = folder / STATE_FILE
    if "state" not in _RAW:
        save_state(path, _state())
        _RAW["state"] = path.read_bytes()
    path.write_bytes(mutated(rng, _RAW["state"]))
    state = load_state(path)
    if rng.random() < 0.5:
        round_at(folder), spent_at(folder)
    # The archive carries checksums: what still loads holds the same arrays.
    if not _equal(state, _state()):
        raise WrongAcceptanceError("a damaged state was loaded")


_RAW: dict[str, bytes] = {}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")
    return bool(a == b)


def _mappings(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The dict and all that it holds."""
    return [value, *(inner for v in value.values() if isinstance(v, dict) for inner in _mappings(v))]


def fuzz_selector(rng: random.Random, folder: Path) -> None:
    """Sound files with senseless content; the trainer turns these errors into a RunError (tests/test_resume.py).

    What still loads may be nonsense: checksums and the seal are against accidents, not against a forger.
    """
    from dopr.selection import SelectorConfig, make_selector
    from dopr.train.checkpoint import STATE_ERRORS

    state = _state()["selector"]
    for _ in range(rng.randint(1, 3)):
        target = rng.choice([m for m in _mappings(state) if m])
        key = rng.choice(list(target))
        if rng.random() < 0.3:
            del target[key]
        else:
            target[key] = rng.choice([some_value(rng), np.zeros(rng.randrange(4)), np.full(20, np.nan)])
    selector = make_selector("dopr", [f"p{i}" for i in range(20)], SelectorConfig(group_size=4, candidates=8))
    try:
        with np.errstate(invalid="ignore"):
            selector.load_state_dict(state)
    except DoprError:
        raise
    except STATE_ERRORS as error:
        raise RunError(str(error)) from error


def fuzz_window(rng: random.Random, folder: Path) -> None:
    import torch

    from dopr.train.checkpoint import load_window, save_window

    path = folder / "w.safetensors"
    if "window" not in _RAW:
        batch = {"ids": torch.arange(40).reshape(4, 10), "old": None, "n": torch.tensor(3)}
        save_window(path, [batch, dict(batch)])
        _RAW["window"] = path.read_bytes()
    path.write_bytes(mutated(rng, _RAW["window"]))
    load_window(path, "cpu")


def fuzz_seal(rng: random.Random, folder: Path) -> None:
    from dopr.train.checkpoint import SEAL, flaw, seal

    place = folder / "checkpoint-1"
    place.mkdir(exist_ok=True)
    for name in ("a.bin", "b.json"):
        (place / name).write_bytes(name.encode() * 50)
    seal(place)
    victim = place / rng.choice(["a.bin", "b.json", SEAL])
    before = victim.read_bytes()
    after = mutated(rng, before)
    victim.write_bytes(after)
    wrong = flaw(place)
    if wrong is None and after != before and victim.name != SEAL:
        raise WrongAcceptanceError("a changed checkpoint passed as whole")


def _event(number: int) -> dict[str, Any]:
    pick = {"id": f"p{number}", "score": 0.5, "rollouts": 4, "rewards": [0.0, 1.0, None, 1.0], "success": 0.5, "outcome": "mixed",
            "action": "keep", "entropy": 1.0, "tokens": 40, "cluster": 0, "skill": "a"}  # fmt: skip
    return {"kind": "round", "round": number, "step": number, "picks": [pick], "candidates": ["p1"], "scores": [0.5],
            "replayed": 0, "seconds": {"round": 1.0}, "spent": {"rollouts": 4 * number, "tokens": 40, "seconds": 1.0,
                                                                "updates": number, "prompts": number}}  # fmt: skip


def fuzz_events(rng: random.Random, folder: Path) -> None:
    from dopr.runlog import EventLog, read_events

    path = folder / "events.jsonl"
    raw = "".join(json.dumps(_event(i)) + "\n" for i in range(1, 4)).encode()
    path.write_bytes(mutated(rng, raw))
    log = EventLog(path)
    log.cut_back(rng.choice([0, 10, len(raw), log.size]), rng.randrange(4))
    log.write("round", round=9, text=some_text(rng))
    events = read_events(folder)
    if events[-1]["round"] != 9:
        raise WrongAcceptanceError("the last event is not the one written last")


def fuzz_report(rng: random.Random, folder: Path) -> None:
    from dopr.report import write_report

    run = folder / "run"
    run.mkdir(exist_ok=True)
    lines = [_event(i) for i in range(1, 5)] + [
        {"kind": "eval", "round": 4, "accuracy": 0.5, "low": 0.1, "high": 0.9, "n": 4}
    ]
    for event in lines:
        if rng.random() < 0.5:
            target = rng.choice([event, event["picks"][0]]) if "picks" in event else event
            target[rng.choice(list(target))] = some_value(rng)
    (run / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    for name, content in (
        ("config.json", {"settings": {"model": "m"}, "resolved": {}}),
        ("summary.json", {"status": "finished"}),
    ):
        content[some_text(rng)] = some_value(rng)
        (run / name).write_bytes(
            mutated(rng, json.dumps(content).encode()) if rng.random() < 0.2 else json.dumps(content).encode()
        )
    page = write_report(run).read_text("utf-8")
    if "<script" in page:
        raise WrongAcceptanceError("a script came into the report")


# -- running -------------------------------------------------------------------------------------------------------

TARGETS: dict[str, Callable[[random.Random, Path], None]] = {name: globals()[f"fuzz_{name}"] for name in SHARES}


def _late(number: int, frame: Any) -> None:
    raise TimeoutError(f"more than {SLOWEST} seconds")


def run(inputs: int, seed: int, only: str | None = None, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Feed ``inputs`` inputs in all; per target how many were taken and refused, and the failures (at most five each)."""
    previous = signal.signal(signal.SIGALRM, _late)
    results: dict[str, Any] = {}
    total = sum(SHARES.values())
    try:
        for name, target in TARGETS.items():
            if only not in (None, name):
                continue
            count = inputs if only else max(1, int(inputs * SHARES[name] / total))
            taken = refused = 0
            failures: list[str] = []
            began, slowest = time.perf_counter(), 0.0
            with tempfile.TemporaryDirectory() as folder:
                for i in range(count):
                    rng = random.Random(f"{seed}-{name}-{i}")
                    start = time.perf_counter()
                    signal.alarm(SLOWEST)
                    try:
                        target(rng, Path(folder))
                        taken += 1
                    except DoprError:
                        refused += 1
                    except Exception:  # noqa: BLE001 - this is what is looked for
                        failures.append(f"{name} {i}: {traceback.format_exc(limit=-4)}")
                    finally:
                        signal.alarm(0)
                    slowest = max(slowest, time.perf_counter() - start)
                    if len(failures) >= 5:
                        break
            results[name] = {
                "inputs": taken + refused + len(failures), "taken": taken, "refused": refused, "failed": len(failures),
                "seconds": round(time.perf_counter() - began, 1), "slowest": round(slowest, 3), "failures": failures,
            }  # fmt: skip
            say(f"{name}: {results[name] | {'failures': failures[:2]}}")
    finally:
        signal.signal(signal.SIGALRM, previous)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=110_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(TARGETS), help="give all inputs to one target")
    parser.add_argument("--write", type=Path, help="JSON file for the counts")
    args = parser.parse_args()
    results = run(args.inputs, args.seed, args.only)
    total = {key: sum(r[key] for r in results.values()) for key in ("inputs", "taken", "refused", "failed", "seconds")}
    print(json.dumps(total))
    for text in (text for r in results.values() for text in r["failures"]):
        print(text)
    if args.write:
        args.write.write_text(json.dumps({"seed": args.seed, "total": total, "targets": results}, indent=1) + "\n")
    sys.exit(bool(total["failed"]))


if __name__ == "__main__":
    main()
