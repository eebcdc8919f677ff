from __future__ import annotations

import json
import multiprocessing
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopr.errors import RewardError
from dopr.tasks.answers import gold_text
from dopr.tasks.final_answer import RULES, find_answer
from dopr.tasks.math_equal import quick
from dopr.tasks.math_judge import judge
from dopr.tasks.math_verifier import boxed
from dopr.tasks.quantities import read_quantity
from dopr.tasks.rewards import resolve_rewards
from verdict_table import verdict_rows

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
ROWS = verdict_rows()


@pytest.fixture(scope="module")
def math():
    (reward,) = resolve_rewards(["math"], timeout=10.0)
    return reward


@pytest.fixture(scope="module")
def verdicts(math):
    return math(completions=[row["completion"] for row in ROWS], answer=[row["gold"] for row in ROWS])


@pytest.mark.parametrize("k", range(len(ROWS)), ids=[f"{k}: {row['reason']}" for k, row in enumerate(ROWS)])
def test_the_table_of_verdicts(k, verdicts):
    row = ROWS[k]
    assert verdicts[k] == float(row["expected"]), f"{row['gold']!r} and {row['completion'][:100]!r}: {row['reason']}"


def test_the_table_is_large_and_every_row_has_a_reason():
    assert len(ROWS) >= 150
    assert all(row["reason"] for row in ROWS)
    assert len({(row["gold"], row["completion"]) for row in ROWS}) == len(ROWS)


SOME = ROWS[::5]


def _in_a_child(connection) -> None:
    (reward,) = resolve_rewards(["math"], timeout=10.0)
    connection.send(reward(completions=[r["completion"] for r in SOME], answer=[r["gold"] for r in SOME]))


def test_verdicts_are_the_same_in_threads_and_in_processes(math, verdicts):
    expected = verdicts[::5]
    results: list[list[float | None]] = []

    def call() -> None:
        results.append(math(completions=[r["completion"] for r in SOME], answer=[r["gold"] for r in SOME]))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_in_a_child, args=(sender,), daemon=True)
    child.start()
    for thread in threads:
        thread.join()
    assert receiver.recv() == expected
    child.join()
    assert results == [expected] * 4


@pytest.mark.parametrize(
    ("spec", "text", "reward"),
    [
        ("math", "I get 5.", 1.0),
        ("math:boxed", "I get 5.", 0.0),
        ("math:boxed", "The answer is 5.", 0.0),
        ("math:boxed", "\\boxed{5}, so the answer is 6.", 1.0),
        ("math:boxed,final", "The answer is 5.", 1.0),
        ("math:boxed,final", "I get 5.", 0.0),
        ("math:final", "\\boxed{6}. The answer is 5. So \\boxed{6}", 1.0),
        ("math:last", "\\boxed{6}: 2 + 3 = 5", 1.0),
    ],
)
def test_where_an_answer_may_stand_is_configurable(spec, text, reward):
    (math,) = resolve_rewards([spec], timeout=5.0)
    assert math(completions=[text], answer=["5"]) == [reward]


def test_an_unknown_extraction_rule_is_named():
    with pytest.raises(RewardError, match=r"names the rule 'boxes'. Did you mean 'boxed'"):
        resolve_rewards(["math:boxes"], timeout=5.0)


def test_a_gold_that_cannot_be_read_is_unscorable(math):
    assert math(completions=["5", "\\boxed{5}"], answer=[None, "  "]) == [None, None]


@pytest.mark.parametrize(
    ("listed", "gold", "right", "wrong"),
    [
        (["Paris", "City of Paris", "Paris, France"], "Paris OR City of Paris OR Paris, France", ["Paris", "Paris, France"], ["London"]),
        (["US", "USA", "United States"], "US OR USA OR United States", ["USA", "united states"], ["UK"]),
        (["2", "3"], "2, 3", ["2, 3", "3, 2"], ["2"]),
        (["A", "C"], "A, C", ["A, C"], ["A"]),
        (["ab", "cd"], "ab, cd", ["ab, cd"], ["ab"]),
        (["$x$", "infinitely many"], "$x$, infinitely many", ["$x$, infinitely many"], ["x"]),
    ],
)  # fmt: skip
def test_of_a_list_of_words_any_is_right_and_any_other_list_is_one_answer(math, listed, gold, right, wrong):
    assert gold_text(listed) == gold
    told = [boxed(gold), *(f"\\boxed{{{answer}}}" for answer in [*right, *wrong])]
    assert math(completions=told, answer=[gold] * len(told)) == [1.0] * (1 + len(right)) + [0.0] * len(wrong)


def test_equal_statements_extract_to_equal_texts(math):
    assert math.extract("\\boxed{\\frac{1}{2}}") == math.extract("The answer is 0.5.") == "1/2"
    assert math.extract("\\boxed{x + 1}") == math.extract("The answer is $x+1$.") == "x+1"
    for one, other in (
        (r"\boxed{\dfrac{\pi}{2}}", r"\boxed{\frac{\pi}{2}}"), (r"\boxed{x=5}", "The answer is 5."), (r"\boxed{\text{(B)}}", r"\boxed{B}"),
        (r"\boxed{\text{Yes}}", "The answer is yes."), (r"\boxed{2\text{ million}}", r"\boxed{2{,}000{,}000}"), (r"\boxed{(1, 2)}", r"\boxed{(1,2)}"),
    ):  # fmt: skip
        assert math.extract(one) == math.extract(other) is not None
    assert math.extract(r"\boxed{x=5}") != math.extract(r"\boxed{x=7}")
    assert math.extract("I cannot say") is None


# Mostly what answers are made of, so that the readers get far.
PIECES = st.sampled_from(
    ["\\boxed{", "}", "{", "the answer is ", "Answer: ", "####", "$", "\\(", "\\)", "\\[", "\\]", " or ", " and ", ",", ".", "5", "12",
     "1,000", "\\frac", "x", "=", "-", "(", ")", "[", "]", "%", "\\text{", "km", "\n", " ", "<answer>", "</answer>", "</think>", "not ",
     "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "&", "^", "_8", "٣", "²", "\x1f", "\x00", "\ud800"]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=200))


@settings(max_examples=600, deadline=None)
@given(TEXTS, TEXTS)
def test_reading_and_quick_comparison_never_fail(completion, gold):
    stated = find_answer(completion)
    if stated is not None:
        assert stated.rule in RULES
        assert all(stated.parts)
        for part in stated.parts:
            assert quick(gold, part) in {True, False, None}
    read_quantity(gold)


@settings(max_examples=200, deadline=None)
@given(
    st.fractions(max_denominator=10**6),
    st.sampled_from(["\\boxed{{{}}}", "The answer is {}.", "so = {}", "#### {}", "A: {}"]),
)
def test_every_number_is_found_and_equals_itself_alone(value, form):
    stated = find_answer(form.format(value))
    assert stated is not None
    assert [quick(str(value), part) for part in stated.parts] == [True]
    assert [quick(str(value + 1), part) for part in stated.parts] == [False]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**12), st.integers(0, 6))
def test_separators_and_trailing_zeros_do_not_matter(number, zeros):
    shown = f"{number:,}" + ("." + "0" * zeros if zeros else "")
    assert quick(str(number), shown) is True
    assert quick(str(number), shown.replace(",", "{,}")) is True
    assert quick(f"\\${shown}", str(number)) is True


@pytest.mark.parametrize("text", ["1" * 10**6, "(" * 10**6, "\\boxed{" * 10**5, "$" * 10**6, "answer " * 10**5, "a = " * 10**5,
                                  "\\boxed{" * 10**4 + "}" * 10**4, "<answer>" * 10**5, "\\begin{pmatrix}" * 10**4, "the answer is " * 10**5, "<<" * 10**5, "1 or " * 10**5,
                                  "The answer is 5" + ")" * 10**5, "The answer is 5" + "[and " * 10**5, "\\fbox{6}\nA:5\n" * 10**5])  # fmt: skip
def test_reading_long_texts_is_quick(text):
    find_answer(text)  # the suite's own time limit is the test: quadratic readers take hours here


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
@pytest.mark.parametrize(
    ("name", "column", "wrong"),
    [("gsm8k_test.jsonl", "answer", 0), ("math500.jsonl", "solution", 0), ("aime24.jsonl", "solution", 0)],
)
def test_worked_solutions_score(math, name, column, wrong):
    rows = [json.loads(line) for line in (REAL / name).read_text().splitlines()]
    rewards = math(completions=[row[column] for row in rows], answer=[row["answer"] for row in rows])
    assert sum(reward != 1.0 for reward in rewards) == wrong


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
def test_math_agrees_with_the_published_verdicts_on_real_completions(math):
    rows = [json.loads(line) for line in (REAL / "gsm8k_model_solutions.jsonl").read_text().splitlines()]
    rewards = math(completions=[row["completion"] for row in rows], answer=[row["answer"] for row in rows])
    assert [reward == 1.0 for reward in rewards] == [row["is_correct"] for row in rows]


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
def test_golds_pass_their_own_verifier(math):
    golds = [gold_text(json.loads(line)["answer"]) for line in (REAL / "math500.jsonl").read_text().splitlines()]
    assert math(completions=[boxed(gold) for gold in golds], answer=golds) == [1.0] * 500


def test_a_bound_that_is_no_real_number_is_a_wrong_answer_and_no_error() -> None:
    assert judge([[r"(-\infty,-3)\cup(3,\infty)"], [r"x<\sqrt{-1}, x>3", "x<-3, x>3"], 5]) == [False, True]
