from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopr.errors import DataError, RewardError
from dopr.tasks.answers import last_number, number_text, parse_number
from dopr.tasks.boxes import last_boxed
from dopr.tasks.guard import GuardedReward
from dopr.tasks.problems import Problem, load_problems, to_rows
from dopr.tasks.rewards import auto_reward, check_golds, preflight, resolve_rewards

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def named(spec: str, timeout: float = 20.0):
    (reward,) = resolve_rewards([spec], timeout=timeout)
    return reward


@pytest.fixture(scope="module")
def gym():
    return named("gym")


def verdict(spec: str, completion, gold):
    return named(spec)(completions=[completion], answer=[gold])[0]


def guarded(function, timeout: float = 20.0) -> GuardedReward:
    return GuardedReward(function, timeout=timeout)


def golds(*answers, prompt="q") -> list[Problem]:
    return [Problem(id=f"p{i}", prompt=f"{prompt}{i}", answer=a, extra={}) for i, a in enumerate(answers)]


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 + 3 = 15.", "15"),
        ("It costs $1,234.50!", "1234.5"),
        ("50%", "50"),
        ("5-3", "3"),
        ("10 - 3", "3"),
        ("x = -3", "-3"),
        ("x = - 3", "-3"),
        ("(-2)", "-2"),
        ("-$3", "-3"),
        ("$-3", "-3"),
        ("\N{MINUS SIGN}7", "-7"),
        ("- 4 apples", "4"),
        ("1, 2, 3", "3"),
        ("1,2345", "2345"),
        ("1{,}234 or 1\\,234", "1234"),
        ("about 3/4", "3/4"),
        ("-3/4", "-3/4"),
        ("\\boxed{\\frac{3}{4}}", "3/4"),
        ("-\\dfrac{3}{4}", "-3/4"),
        ("1.5e3", "1500"),
        ("25 cm^2", "25"),
        ("\\boxed{12\\text{ cm}^2}", "12"),
        ("x^2 is all", None),
        ("5^3 and x^{-2}", "125"),
        ("10^6", "1000000"),
        ("3 \\times 10^5", "300000"),
        ("9^9999999", None),
        ("1e400^400", None),
        ("2\\frac{1}{2}", "5/2"),
        ("\\frac12", "1/2"),
        ("It takes 1 1/2 hours", "3/2"),
        ("pages 5–7, at –5", "-5"),
        (".5", "1/2"),
        ("0.50.", "1/2"),
        ("5/0", None),
        ("1e999999999", None),
        ("9" * 1_000_000, None),
        ("1/" + "9" * 1_000_000, None),
        ("1," + "111," * 100_000, None),
        ("no digits", None),
        ("", None),
        ("٣", None),
    ],
)
def test_the_last_number_is_read(text, value):
    assert last_number(text) == (None if value is None else Fraction(value))


@given(st.text(alphabet=st.sampled_from("0123456789.,/$%-+eE= \n{}\\fracab()^x"), max_size=80))
def test_reading_a_number_never_fails_and_is_the_same_after_other_text(text):
    value = last_number(text)
    assert last_number("b" * 50 + " 1 b; " + text) == (
        value if any(c in "0123456789" for c in re.sub(r"\^\s?\{?\s?-?[0-9]+", "", text)) else 1
    )
    assert value is None or parse_number(number_text(value)) == value


@given(st.fractions())
def test_a_canonical_number_reads_as_itself(value):
    assert last_number(f"so it is {number_text(value)}.") == value == parse_number(number_text(value))


@pytest.mark.parametrize("text", ["7 apples", "x", "1 2", "1 1/2 h", "", "3-4", "x^2", "^2", "x=3", "1,2,3"])
def test_only_a_whole_number_is_a_gold_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(("text", "value"), [("$1,234.50", "1234.5"), ("25%", "25"), ("7.", "7"), (" -3/4 ", "-3/4")])
def test_golds_may_be_written_like_prices(text, value):
    assert parse_number(text) == Fraction(value)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("\\boxed{1} \\boxed{ \\frac{1}{2} }", "\\frac{1}{2}"),
        ("\\boxed{1} \\boxed{2", "1"),
        ("\\boxed{", None),
        ("none", None),
        ("\\boxed{a\\boxed{b}}", "a{b}"),
        ("\\boxed{1} \\boxed{ }", "1"),
        ("we get $\\boxed 8$.", "8"),
        ("we get $\\boxed {8}$.", "8"),
        ("we get $\\fbox{8}$.", "8"),
        ("\\boxed{" * 20_000, None),
    ],
)
def test_the_last_complete_box_counts(text, inner):
    assert last_boxed(text) == inner


# -- named verifiers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "completion", "gold", "reward"),
    [
        ("number", "so 1,000 eggs.", "1000", 1.0),
        ("number", "so 0.50", "1/2", 1.0),
        ("number", "1000 eggs, no: 3", "1000", 0.0),
        ("number", "none", "3", 0.0),
        ("number", "so 2/3", "0.6666666667", 1.0),
        ("number", "so 0.666667", "0.6666666667", 1.0),
        ("number", "so 0.6667", "0.6666666667", 0.0),
        ("number", "so 0.6666666", "0.6666666667", 0.0),
        ("number", "so 10 1/3", "10.3333333333", 1.0),
        ("number", "so -1/6", "-0.1666666667", 1.0),
        ("number", "so 1/6", "-0.1666666667", 0.0),
        ("number", "so 0.33", "1/3", 0.0),
        ("number", "so 1", "1.000001", 0.0),
        ("number", "3", "three", None),
        ("number", "3", None, None),
        ("number", "3", 3, 1.0),
        ("number", "3", "2+1=3 #### 3", 1.0),
        ("exact", " Paris\n", "Paris", 1.0),
        ("exact", "paris", "Paris", 0.0),
        ("exact", "The capital is Paris", "Paris", 0.0),
        ("world", "1+2=3;=3\n", "3", 1.0),
        ("world", "3", "3", 1.0),
        ("world", "=3=4", "3", 0.0),
        ("world", "=30", "3", 0.0),
        ("choice", "I think (A), no, the answer is (C).", "C", 1.0),
        ("choice", "The answer is b.", "B", 1.0),
        ("choice", "The answer is a dog, so A dog", "A", 0.0),
        ("choice", "Answer: **D**", "D", 1.0),
        ("choice", "\\boxed{\\text{E}}", "E", 1.0),
        ("choice", "C", "(C)", 1.0),
        ("choice", "b", "B", 1.0),
        ("choice", "B) because", "B", 1.0),
        ("choice", "**Answer:** B", "B", 1.0),
        ("choice", "Final answer: option C", "C", 1.0),
        ("choice", "The correct answer is option B.", "B", 1.0),
        ("choice", "\\boxed{\\mathrm{B}}", "B", 1.0),
        ("choice", "\\boxed{B. 12}", "B", 1.0),
        ("choice", "The answer is C because P(B) = 0.3.", "C", 1.0),
        ("choice", "Answer: (B)\nThe function f(a) grows.", "B", 1.0),
        ("choice", "A) 1\nB) 2\nC) 3\nD) 4\nTherefore B is correct.", "B", 1.0),
        ("choice", "A) 1\nB) 2\nC) 3\nD) 4", "D", 0.0),
        ("choice", "The best answer is not A", "A", 0.0),
        ("choice", "<think>Let me see. The answer is A? No.</think>\n\n(B)", "B", 1.0),
        ("choice", "<think>so the answer is A.</think>\n**B) Paris**", "B", 1.0),
        ("choice", "Since angle B is right, so it is (C).", "C", 1.0),
        ("choice", "Neither A nor B is correct, so the correct option is (C).", "C", 1.0),
        ("choice", "Statement A is correct but incomplete. Therefore the best option is (C).", "C", 1.0),
        ("choice", "If B is correct, then A is false. So neither; pick (D).", "D", 1.0),
        ("choice", "\\boxed{A, B}", "A", 0.0),
        ("choice", "\\boxed{B,C}", "A", 0.0),
        ("choice", "\\boxed{A \\cup B}", "A", 0.0),
        ("choice", "<answer>B</answer>", "B", 1.0),
        ("choice", "<answer>B. Paris</answer>", "B", 1.0),
        ("choice", "So the correct option is B.", "B", 1.0),
        ("choice", "The correct choice is **B**.", "B", 1.0),
        ("choice", "**Correct Option:** B", "B", 1.0),
        ("choice", "The answer is `B`.", "B", 1.0),
        ("choice", 'The answer is "B".', "B", 1.0),
        ("choice", "Answer: \\(B\\)", "B", 1.0),
        ("choice", "Answer: [B]", "B", 1.0),
        ("choice", "The answer is b) 12.", "B", 1.0),
        ("choice", "The answer should be B.", "B", 1.0),
        ("choice", "B is the answer.", "B", 1.0),
        ("choice", "\\boxed{\\text{B}}", "B", 1.0),
        ("choice", "\\boxed{(B)\\ 12}", "B", 1.0),
        ("choice", "Therefore (B) is correct.", "B", 1.0),
        ("choice", "D) 4\nTherefore B is correct.", "B", 1.0),
        ("choice", "I do not know", "I", 0.0),
        ("choice", "The correct option is: **B**", "B", 1.0),
        ("choice", "So the correct choice is: **B**.", "B", 1.0),
        ("choice", "The correct answer to this question is B.", "B", 1.0),
        ("choice", "The answer is therefore B.", "B", 1.0),
        ("choice", "The correct answer is 42, which is option B.", "B", 1.0),
        ("choice", "It is 42.\n\n**Option B**", "B", 1.0),
        ("choice", "\\boxed{\\,B}", "B", 1.0),
        ("choice", "<answer>Option B</answer>", "B", 1.0),
        ("choice", "The answer is I think (B).", "B", 1.0),
        ("choice", "The answer is B.\nOption: A is wrong", "B", 1.0),
        ("choice", "The answer is B, A is too small.", "B", 1.0),
        ("choice", "The answer is B and A is wrong.", "B", 1.0),
        ("choice", "The answer is B, A and C are wrong.", "B", 1.0),
        ("choice", "\\boxed{B}, A is a distractor", "B", 1.0),
        ("choice", "\\boxed{B. A cat}", "B", 1.0),
        ("choice", "The answer is A or B. It is not A, so the answer is B.", "B", 1.0),
        ("choice", "The answer is I.", "I", 1.0),
        ("choice", "The answer is I because 9 is odd.", "I", 1.0),
        ("choice", "The answer is I think (B).", "I", 0.0),
        ("choice", "\\boxed{\\text{A or B}}", "A", 0.0),
        ("choice", "\\boxed{A or B}", "A", 0.0),
        ("choice", "\\boxed{(A),(B)}", "A", 0.0),
        ("choice", "\\boxed{(A) \\text{ and } (B)}", "A", 0.0),
        ("choice", "\\boxed{(A)(B)}", "A", 0.0),
        ("choice", "The answer is (A) or (B).", "A", 0.0),
        ("choice", "The answer is A and B.", "A", 0.0),
        ("choice", "The answer is A/B", "A", 0.0),
        ("choice", "Answer: A, B, C, or D", "A", 0.0),
        ("choice", "<answer>A or B</answer>", "A", 0.0),
        ("choice", "The answer is not 41, which is option A.", "A", 0.0),
        ("choice", "**Option B**\nToo large.\n**Option A**", "A", 0.0),
        ("choice", "**Option A**\nToo small.", "A", 0.0),
        ("choice", "\\boxed{A or B}", "B", 0.0),
        ("choice", "The answer is (A) or (B).", "B", 0.0),
        ("choice", "The answer is either (A) or (B).", "B", 0.0),
        ("choice", "The answer is B.\n\n\\boxed{A, B}", "B", 0.0),
        ("choice", "(A)", "Z", None),
        ("regex:answer (\\d+)", "answer 1, answer 2", "2", 1.0),
        ("regex:answer (\\d+)", "answer 1, answer 2", "1", 0.0),
        ("regex:(?:is (\\d+)|was (\\w+))", "was ab", "ab", 1.0),
        ("regex:\\d+", "1 22", "22", 1.0),
        ("regex:\\d+", "none", "22", 0.0),
    ],
)
def test_named_verifiers(spec, completion, gold, reward):
    assert verdict(spec, completion, gold) == reward
    assert verdict(spec, [{"role": "assistant", "content": completion}], gold) == reward


def test_conversations_are_read_at_their_last_message():
    reward = named("exact")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    completions = [
        [{"role": "assistant", "content": "no"}, {"role": "assistant", "content": "ab"}],
        [{"role": "assistant", "content": parts}],
        [{"role": "assistant", "content": None}],
        [],
    ]
    assert reward(completions=completions, answer=["ab"] * 4) == [1.0, 1.0, 0.0, 0.0]


def test_a_pattern_that_runs_away_is_stopped_and_counted():
    reward = named("regex:(?:a|aa)+$", timeout=0.3)
    assert reward(completions=["a" * 60 + "b", "aa"], answer=["aa", "aa"]) == [0.0, 1.0]
    assert reward.counts == {"scored": 2, "unscorable": 0, "errors": 0, "timeouts": 1}


def test_verifiers_count_what_they_score():
    reward = named("number")
    reward(completions=["1", "2", "3"], answer=["1", None, "3"])
    assert reward.counts == {"scored": 2, "unscorable": 1, "errors": 0, "timeouts": 0}


def test_a_verifier_without_its_column_says_which():
    with pytest.raises(RewardError, match="needs the data column 'answer'; there are solution"):
        named("number")(completions=["1"], solution=["1"])


@pytest.mark.parametrize(
    ("spec", "same", "other"),
    [
        ("number", ["it is 1,000", "1000.0"], "1001"),
        ("exact", [" a", "a "], "A"),
        ("world", ["x=3", "y=3\n"], "3=x"),
        ("choice", ["(A)", "answer is a."], "(B)"),
        ("math", ["\\boxed{1/2}", "\\boxed{0.5}"], "\\boxed{x}"),
        ("regex:(\\d)", ["a 1", "1 b"], "2"),
    ],
)
def test_equal_answers_extract_to_equal_texts(spec, same, other):
    extract = named(spec).extract
    assert extract(same[0]) == extract(same[1]) is not None
    assert extract(other) not in {None, extract(same[0])}


def test_nothing_extracts_to_none():
    assert [named(s).extract("none!") for s in ("number", "choice", "math", "regex:\\d")] == [None] * 4


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
def test_number_agrees_with_the_published_verdicts_on_real_completions():
    rows = [json.loads(line) for line in (REAL / "gsm8k_model_solutions.jsonl").read_text().splitlines()]
    rewards = named("number")(completions=[r["completion"] for r in rows], answer=[r["answer"] for r in rows])
    assert len(rows) == 1600
    assert [r == 1.0 for r in rewards] == [row["is_correct"] for row in rows]


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
@pytest.mark.parametrize("spec", ["number", "math"])
def test_fractions_meet_the_rounded_golds_of_a_published_set(spec):
    golds = [p.answer or "" for p in load_problems(str(REAL / "mawps_addsub.jsonl"))]
    long = [gold for gold in golds if len(gold) > 10]
    exact = [str(Fraction(gold).limit_denominator(100)) for gold in long]
    assert len(long) == 29
    assert named(spec)(completions=exact, answer=long) == [1.0] * 29


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
@pytest.mark.parametrize("name", ["gsm8k_test.jsonl", "mawps_addsub.jsonl", "amc23.jsonl", "math500.jsonl"])
def test_real_golds_pass_the_verifier_chosen_for_them(name):
    problems = load_problems(str(REAL / name))
    chosen = auto_reward(problems)
    assert chosen == ("math" if name.startswith("math") else "number")
    assert check_golds(problems, named(chosen)) == []


# -- gym -------------------------------------------------------------------------------------------------------------


def test_gym_scores_tagged_bare_and_last_line_answers(gym):
    problems = load_problems("gym:chain_sum", size=4)
    entries = [row["gym_entry"] for row in to_rows(problems)]
    a, b, c, d = (p.answer for p in problems)
    texts = [f"hm <answer>1</answer> <answer>{a}</answer>", f"{b}", f"so it is\n{c}", f"<answer>x{d}</answer>"]
    rewards = gym(completions=texts, gym_entry=entries)
    assert rewards[:3] == [1.0, 1.0, 1.0]
    assert rewards[3] is not None
    assert rewards[3] < 1.0
    assert gym.extract(texts[0]) == a


@pytest.mark.parametrize("task", ["arc_agi", "countdown", "propositional_logic", "simple_equations"])
def test_gym_entries_survive_their_journey_as_text(task, gym):
    # arc_agi compares tuples, which plain JSON turns into lists; propositional_logic has no gold answer at all.
    problems = load_problems(f"gym:{task}", size=3)
    assert check_golds(problems, gym) == []


# -- resolving -------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_function_is_imported_from_the_working_directory(here):
    (here / "my_rewards_a.py").write_text("def length(completions, **kw):\n    return [len(c) for c in completions]\n")
    reward = named("my_rewards_a:length")
    assert reward.__name__ == "length"
    assert reward(completions=["ab", ""], prompts=["p", "p"]) == [2.0, 0.0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nmber", "There is no reward 'nmber'. Did you mean 'number'"),
        ("regex:(", "is not valid"),
        ("absent_module:f", "names the module 'absent_module', which is neither installed nor in"),
        ("my_rewards_b:lenght", "has no function 'lenght'. Did you mean 'length'"),
        ("my_rewards_b:VALUE", "is a int, not a function"),
        ("my_rewards_b:Kind", "is a type, not a function"),
        ("my_rewards_b.py:length", "without .py"),
        ("my_rewards_b:", "not of the form module:function"),
        ("my_rewards_c:f", "cannot be imported: SyntaxError"),
        ("my_rewards_d:f", "needs 'absent_dependency', which is not installed"),
    ],
)
def test_a_wrong_reward_name_says_why(here, spec, words):
    (here / "my_rewards_b.py").write_text("VALUE = 3\nclass Kind: pass\ndef length(completions, **kw): return []\n")
    (here / "my_rewards_c.py").write_text("def f(:\n")
    (here / "my_rewards_d.py").write_text("import absent_dependency\n")
    with pytest.raises(RewardError) as caught:
        named(spec)
    assert words in str(caught.value)


def test_no_reward_and_no_time_are_errors():
    with pytest.raises(RewardError, match="No reward is given"):
        resolve_rewards([], timeout=1)
    for timeout in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RewardError, match="timeout"):
            resolve_rewards(["number"], timeout=timeout)


@pytest.mark.parametrize(
    ("answers", "name"),
    [(["1", "2,000", "3/4"], "number"), (["A", "(E)"], "choice"), (["1", "x+1"], "math"), (["A", "x"], "math")],
)
def test_the_verifier_is_chosen_by_the_golds(answers, name):
    assert auto_reward(golds(*answers)) == name


def test_no_verifier_is_chosen_without_golds():
    for problems in ([], golds("1", None)):
        with pytest.raises(RewardError, match="Name a reward function"):
            auto_reward(problems)


# -- guard -----------------------------------------------------------------------------------------------------------


def test_a_guarded_reward_passes_everything_through_unchanged():
    seen = {}

    def reward(**kwargs):
        seen.update(kwargs)
        return [True, np.float32(0.5)]

    state, chat = object(), [[{"role": "assistant", "content": "x"}], [{"role": "assistant", "content": "y"}]]
    columns = {"prompts": ["p", "q"], "completion_ids": [[1], [2]], "trainer_state": state, "environments": [3, 4]}
    assert guarded(reward)(completions=chat, **columns) == [1.0, 0.5]
    assert seen == {"completions": chat} | columns
    assert guarded(reward).__name__ == "reward"


@pytest.mark.parametrize(
    ("returned", "rewards"),
    [
        ([1, None], [1.0, None]),
        ([float("nan"), float("inf")], [None, None]),
        ((0, -1.5), [0.0, -1.5]),
        (np.array([1.0, np.nan]), [1.0, None]),
        ([Fraction(1, 2), 10**400], [0.5, None]),
    ],
)
def test_numbers_of_any_kind_are_rewards_and_the_rest_is_unscorable(returned, rewards):
    reward = guarded(lambda completions, **kw: returned)
    assert reward(completions=["a", "b"]) == rewards
    assert reward.counts["unscorable"] == rewards.count(None)
    assert reward.counts["scored"] == 2 - rewards.count(None)


def test_torch_values_are_rewards():
    torch = pytest.importorskip("torch")
    assert guarded(lambda completions, **kw: torch.tensor([1.0, 2.0]))(completions=["a", "b"]) == [1.0, 2.0]
    assert guarded(lambda completions, **kw: [torch.tensor(1), None])(completions=["a", "b"]) == [1.0, None]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1.0], "returned 1 rewards for 2 completions"),
        (["good", "bad"], "returned 'good' (of type str) for completion 0"),
        ([1.0, [2.0]], "returned [2.0] (of type list) for completion 1"),
        ([1.0, np.zeros(0)], "for completion 1"),
        (3.0, "returned 3.0 (of type float); it must return a list"),
        (None, "returned None (of type NoneType); it must return a list"),
        ({"a": 1}, "must return a list"),
        ("ab", "must return a list"),
    ],
)
def test_a_reward_of_the_wrong_kind_is_an_error_not_a_none(returned, words):
    with pytest.raises(RewardError) as caught:
        guarded(lambda completions, **kw: returned)(completions=["a", "b"])
    assert words in str(caught.value)


def test_an_exception_costs_only_the_completion_that_causes_it(caplog):
    def reward(completions, answer, step, **kw):
        return [float(int(c) == a + step) for c, a in zip(completions, answer, strict=True)]

    guard = guarded(reward)
    with caplog.at_level(logging.WARNING, logger="dopr"):
        assert guard(completions=["1", "x", "4"], answer=[1, 2, 3], step=0) == [1.0, None, 0.0]
        assert guard(completions=["y"], answer=[1], step=0) == [None]
    assert guard.counts == {"scored": 2, "unscorable": 2, "errors": 2, "timeouts": 0}
    assert caplog.text.count("raised ValueError") == 1


def test_leaving_the_interpreter_is_an_exception_like_others():
    assert guarded(lambda completions, **kw: sys.exit(3))(completions=["a"]) == [None]


def test_a_hanging_call_is_given_up_and_counted(caplog):
    release = threading.Event()
    guard = guarded(lambda completions, **kw: release.wait() and [1.0], timeout=0.2)
    with caplog.at_level(logging.WARNING, logger="dopr"):
        assert guard(completions=["a", "b"]) == [None, None]
    assert guard.counts == {"scored": 0, "unscorable": 2, "errors": 0, "timeouts": 1}
    assert "took more than 0.2 seconds" in caplog.text
    release.set()


def test_a_functions_own_timeout_error_is_an_error():
    def reward(completions, **kw):
        if completions[0] == "slow":
            raise TimeoutError("no answer from the judge")
        return [1.0] * len(completions)

    guard = guarded(reward)
    assert guard(completions=["slow", "fast"]) == [None, 1.0]
    assert (guard.counts["errors"], guard.counts["timeouts"]) == (1, 0)


def test_async_functions_run_on_one_lasting_loop():
    loops = set()

    async def reward(completions, **kw):
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        return [float(len(c)) for c in completions]

    guard = guarded(reward)
    assert guard(completions=["a", "bb"]) == [1.0, 2.0]
    assert guard(completions=["ccc"]) == [3.0]
    assert len(loops) == 1


def test_a_late_async_function_is_cancelled():
    cancelled = threading.Event()

    async def reward(completions, **kw):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    guard = guarded(reward, timeout=0.2)
    assert guard(completions=["a"]) == [None]
    assert guard.counts["timeouts"] == 1
    assert cancelled.wait(10)


def test_a_function_that_needs_the_main_thread_gets_it():
    def reward(completions, **kw):
        signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        return [float(threading.current_thread() is threading.main_thread())] * len(completions)

    guard = guarded(reward)
    assert guard(completions=["a", "b"]) == [1.0, 1.0]
    assert guard.counts["errors"] == 0


def test_math_verify_works_inside_a_users_function():
    from math_verify import parse, verify

    def reward(completions, answer, **kw):
        return [float(verify(parse(a), parse(c))) for c, a in zip(completions, answer, strict=True)]

    assert guarded(reward)(completions=["$1/2$", "$2$"], answer=["$0.5$", "$1$"]) == [1.0, 0.0]


def test_extra_columns_are_logged_whole_or_not_at_all():
    logged = []

    def log(column, values):
        logged.append((column, list(values)))

    def reward(completions, log_extra, **kw):
        log_extra("length", [len(c) for c in completions])
        if "bad" in completions:
            raise ValueError("bad")
        return [1.0] * len(completions)

    guard = guarded(reward)
    guard(completions=["a", "bb"], log_extra=log)
    guard(completions=["a", "bad", "ccc"], log_extra=log)
    assert logged == [("length", [1, 2]), ("length", [1, None, 3])]


def test_the_functions_extractor_is_the_guards():
    def reward(completions, **kw):
        return [1.0] * len(completions)

    assert guarded(reward).extract is None
    reward.extract = str.upper
    assert guarded(reward).extract("a") == "A"


# -- preflight -------------------------------------------------------------------------------------------------------


def never(completions, **kw):
    raise KeyError("gold")


def hang(completions, **kw):
    threading.Event().wait(30)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (never, "raises on every call: KeyError: 'gold'"),
        (lambda: [], "raises on every call: TypeError"),
        (hang, "took more than 0.3 seconds"),
        (lambda completions, **kw: [1.0], "returned 1 rewards for 3"),
        (lambda completions, **kw: ["1"] * 3, "returned '1' (of type str)"),
        (lambda completions, **kw: [float("nan")] * 3, "NaN or infinity for all of 3"),
        (lambda completions, **kw: (1.0 for _ in completions), "must return a list"),
    ],
)
def test_preflight_stops_a_function_that_cannot_work(function, words):
    with pytest.raises(RewardError) as caught:
        preflight([guarded(function)], golds("1", "2", "3"), timeout=0.3)
    assert words in str(caught.value)


def test_preflight_lets_working_functions_pass():
    def picky(completions, answer, prompts, trainer_state, log_extra, log_metric, completion_ids, **kw):
        log_extra("n", [1] * len(completions))
        log_metric("m", trainer_state.global_step)
        return [1.0 / (int(a) - 1) for a in answer]  # fails on the first gold only

    rewards = [
        guarded(picky),
        guarded(lambda completions, **kw: [None] * len(completions)),
        *resolve_rewards(["number"], timeout=1),
    ]
    preflight(rewards, golds("1", "2", "3"), timeout=5)
    assert rewards[2].counts["scored"] == 0


def test_preflight_says_once_which_columns_a_working_function_does_not_get(caplog):
    seen = []

    def function(completions, **columns):
        seen.append({name for name in ("mixed", "lists", "late") if name in columns})
        return [1.0] * len(completions)

    problems = [replace(p, extra={"lists": [p.id], "mixed": 1, "late": 1}) for p in golds(*"12345")]
    problems.append(replace(problems[0], id="last", extra={"lists": [], "mixed": "x", "late": ["x"]}))
    preflight([guarded(function)], problems, timeout=5)
    assert seen == [{"lists"}]  # as in the run: by all problems, not by the four that it is tried on
    (message,) = caplog.messages
    assert "is not given all columns: 'mixed' (a dataset cannot hold it: " in message
    assert "'late' (" in message


def test_preflight_gives_messages_where_the_run_will():
    def conversational(completions, **kw):
        return [float(len(c[0]["content"])) for c in completions]

    preflight([guarded(conversational)], golds("1"), timeout=5, chat=True)
    with pytest.raises(RewardError, match="raises on every call"):
        preflight([guarded(conversational)], golds("1"), timeout=5)


def test_preflight_names_the_golds_that_their_verifier_rejects():
    problems = golds("1", *["x"] * 6, None)
    with pytest.raises(DataError) as caught:
        preflight(resolve_rewards(["number"], timeout=1), problems, timeout=1)
    message = str(caught.value)
    assert message.startswith("7 of 8 problems have a gold answer that their own verifier, 'number', rejects: ")
    assert "'p1': the gold 'x' cannot be read" in message
    assert message.count("; ") == 5


@pytest.mark.parametrize("spec", ["math", "math:boxed", "number", "number&format:boxed"])
@pytest.mark.parametrize(
    "gold",
    [
        "If Jungkook is in 5th place, then 4 people crossed the finish line before him.",
        "Adding 5 and 3 gives 8. The answer is 8.",
        "We see that\n\\[x = 3\\]so the area is therefore $9$",
        "He sold exactly $5$ of them.",
        "Add.\n#### 8\n\nDone.",
    ],
)
def test_a_gold_that_is_a_sentence_is_refused(spec, gold):
    problems = golds("3", gold)
    with pytest.raises(
        DataError, match=r"1 of 2 problems .* is a sentence or a worked solution; give the answer alone"
    ):
        preflight(resolve_rewards([spec], timeout=5), problems, timeout=5)


@pytest.mark.parametrize(
    "gold",
    [
        "4",
        "He sold 2 on each of the 2 days.\n#### 4",
        "2 hours, 20 minutes and 10 seconds",
        "Approximately 5 meters per second.",
        "5 apples left in the basket after lunch",
        "\\text{all integers that are greater than or equal to } 3",
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        "$x = 1$ or $x = 2$ and $y = 3$",
        "the capital of the republic of France",
    ],
)
def test_a_gold_with_some_words_is_no_sentence(gold):
    assert [why for _, why in check_golds(golds(gold), named("math")) if "sentence" in why] == []


def test_world_golds_with_an_equals_sign_are_rejected():
    assert [(p.id, why) for p, why in check_golds(golds("3", "a=b"), named("world"))] == [
        ("p1", "the gold 'a=b', given as the completion, gets 0")
    ]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "\n" * 10**5,
            "Hello\n" + " \n" * 10**5,
            "(" * 10**6,
            "answer is" + " " * 10**6,
            "1^" * 10**5,
            "\\boxed{" * 10**5,
        ),
        *("\\boxed{" + "A) " * 10**5, "answer is " + "1," * 10**5, "answer is A" + " " * 10**6, "Option A\n" * 10**5),
    ],
)
def test_choices_and_numbers_are_read_in_linear_time(text: str) -> None:
    choice, number = resolve_rewards(["choice", "number"], timeout=5.0)
    assert choice(completions=[text], answer=["B"]) == [0.0]  # the suite's own time limit is the test
    assert number(completions=[text], answer=["7"]) == [0.0]
