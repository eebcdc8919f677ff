"""What the maths verifier says on real data and on the table of verdicts; the figures of docs/verifiers.md.

    python benchmarks/verifier_evidence.py [--plain]

Per set: golds that pass their own verifier, in four forms of completion, each failure with its reason; worked solutions;
the published verdicts on real completions; the table of verdicts. --plain adds what plain math-verify says (minutes).
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dopr.tasks.answers import gold_text
from dopr.tasks.columns import Names, choose, field
from dopr.tasks.final_answer import find_answer
from dopr.tasks.math_equal import prepared, reading
from dopr.tasks.rewards import resolve_rewards
from dopr.tasks.rows import read_path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "tests"))

SETS = ("gsm8k_test.jsonl", "math500.jsonl", "aime24.jsonl", "amc23.jsonl", "dsr_sub.parquet", "gsm8k_train.jsonl",
        "mawps_singleop.jsonl", "mawps_addsub.jsonl", "mawps_multiarith.jsonl")  # fmt: skip
FORMS: dict[str, Callable[[str], str]] = {
    "boxed": lambda gold: f"so we get \\boxed{{{gold}}}.",
    "announced": lambda gold: f"The final answer is ${gold.replace('$', '')}$. I hope it is correct.",
    "in words": lambda gold: f"The answer is {gold}.",
    "displayed": lambda gold: f"so that\n\\[ {gold.replace('$', '')} \\]",
}


def golds_of(name: str) -> list[tuple[str, str | None, str]]:
    """Place, gold and, where there is none, the reason, of every row."""
    rows = read_path(DATA / name, split="train")
    column = choose(rows, name, Names(), require_answer=True).answer
    found: list[tuple[str, str | None, str]] = []
    for row in rows:
        try:
            found.append((row.where, gold_text(field(row.data, str(column))), ""))
        except ValueError as reason:
            found.append((row.where, None, str(reason)))
    return found


def own_golds() -> None:
    (math,) = resolve_rewards(["math"], timeout=10.0)
    print("golds that pass their own verifier, by the form of the completion")
    for name in SETS:
        rows = golds_of(name)
        usable = [(where, gold) for where, gold, _ in rows if gold is not None]
        for where, gold, reason in rows:
            if gold is None:
                print(f"  {name}, {where}: no gold: {reason}")
        shares = []
        for form, completion in FORMS.items():
            rewards = math(completions=[completion(prepared(g)) for _, g in usable], answer=[g for _, g in usable])
            passed = sum(reward == 1.0 for reward in rewards)
            shares.append(f"{form} {passed:,}/{len(rows):,} ({passed / len(rows):.2%})")
            for (where, gold), reward in zip(usable, rewards, strict=True):
                if reward != 1.0:
                    print(f"  {name}, {where}, {form}: {gold!r} read as {find_answer(completion(prepared(gold)))}")
        kinds = Counter(reading([gold for _, gold in usable], timeout=10.0))
        print(f"{name}: {'; '.join(shares)}")
        print(f"  read as {', '.join(f'{kind} {count:,}' for kind, count in kinds.most_common())}")


def worked_solutions() -> None:
    (math,) = resolve_rewards(["math"], timeout=10.0)
    print("\nworked solutions of the sets' own, against the gold")
    for name, column in (("math500.jsonl", "solution"), ("aime24.jsonl", "solution"), ("gsm8k_test.jsonl", "answer"), ("gsm8k_train.jsonl", "answer")):  # fmt: skip
        rows = [json.loads(line) for line in (DATA / name).read_text().splitlines()]
        rewards = math(completions=[row[column] for row in rows], answer=[row["answer"] for row in rows])
        print(f"{name}: {sum(reward == 1.0 for reward in rewards):,} of {len(rows):,}")
        for row, reward in zip(rows, rewards, strict=True):
            if reward != 1.0:
                print(f"  {row['answer'][-40:]!r}: {row[column][-120:]!r}")


def published_verdicts() -> None:
    rows = [json.loads(line) for line in (DATA / "gsm8k_model_solutions.jsonl").read_text().splitlines()]
    print("\npublished verdicts on 1,600 real GSM8K completions")
    for spec in ("math", "number"):
        (reward,) = resolve_rewards([spec], timeout=10.0)
        started = time.perf_counter()
        rewards = reward(completions=[row["completion"] for row in rows], answer=[row["answer"] for row in rows])
        agree = sum((value == 1.0) == row["is_correct"] for value, row in zip(rewards, rows, strict=True))
        print(
            f"{spec}: agrees on {agree:,} of {len(rows):,} ({agree / len(rows):.2%}), {time.perf_counter() - started:.2f} s"
        )
        for row, value in zip(rows, rewards, strict=True):
            if (value == 1.0) != row["is_correct"]:
                print(
                    f"  gold {row['answer']}, published {row['is_correct']}, ours {value}: {row['completion'][-80:]!r}"
                )


def random_pairs(count: int = 2500) -> None:
    """Different golds against each other, beside plain math-verify: wrong answers that look right."""
    from math_verify import parse, verify

    rng = random.Random(0)
    golds = [prepared(g) for name in ("math500.jsonl", "dsr_sub.parquet") for _, g, _ in golds_of(name) if g]
    golds = [gold for gold in golds if not gold.lstrip("-").isdigit()]
    pairs = [(rng.choice(golds), rng.choice(golds)) for _ in range(count)]
    (math,) = resolve_rewards(["math"], timeout=10.0)
    rewards = math(completions=[f"\\boxed{{{answer}}}" for _, answer in pairs], answer=[gold for gold, _ in pairs])
    plain = [verify(parse(f"\\boxed{{{gold}}}"), parse(f"\\boxed{{{answer}}}")) for gold, answer in pairs]
    differ = [pair for pair, ours, theirs in zip(pairs, rewards, plain, strict=True) if (ours == 1.0) != theirs]
    print(
        f"\n{count:,} random pairs of golds that are no integers: {sum(plain)} equal by math-verify, {len(differ)} verdicts differ"
    )
    for pair in differ:
        print(f"  {pair}")


def table(plain: bool) -> None:
    from verdict_table import verdict_rows

    rows = verdict_rows()
    (math,) = resolve_rewards(["math"], timeout=10.0)
    rewards = math(completions=[row["completion"] for row in rows], answer=[row["gold"] for row in rows])
    right = sum(reward == float(row["expected"]) for reward, row in zip(rewards, rows, strict=True))
    print(
        f"\ntable of verdicts: {right} of {len(rows)} as expected, {sum(not row['expected'] for row in rows)} of them must not score"
    )
    if not plain:
        return
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it prints whole completions that take too long
    accepted, refused = [], []
    for row in rows:
        said = verify(parse(f"\\boxed{{{row['gold']}}}"), parse(row["completion"]))
        if said and not row["expected"]:
            accepted.append(row)
        elif row["expected"] and not said:
            refused.append(row)
    print(f"plain math-verify: accepts {len(accepted)} that must not score, refuses {len(refused)} that are right")
    for name, found in (("accepts", accepted), ("refuses", refused)):
        for row in found:
            print(f"  {name} {row['gold']!r} for {row['completion'][:70]!r}: {row['reason']}")


if __name__ == "__main__":
    if not DATA.is_dir():
        sys.exit(
            "The shared data folder is not here; only the table of verdicts can be run (tests/test_math_verifier.py)."
        )
    own_golds()
    worked_solutions()
    published_verdicts()
    table("--plain" in sys.argv[1:])
    if "--plain" in sys.argv[1:]:
        random_pairs()
