from __future__ import annotations

import pytest

from dopr.config import EvalSettings
from dopr.errors import RewardError
from dopr.tasks.problems import Problem
from dopr.tasks.rewards import check_golds, needs_answer, preflight, resolve_rewards
from dopr.tasks.shaping import soft_overlong
from dopr.train.scoring import CombinedReward


def named(spec: str):
    (reward,) = resolve_rewards([spec], timeout=5.0)
    return reward


@pytest.mark.parametrize(
    ("form", "text", "reward"),
    [
        ("boxed", "so \\boxed{5}", 1.0),
        ("boxed", "\\boxed{5} and \\boxed{5}", 0.0),
        ("boxed", "so 5", 0.0),
        ("boxed", "\\boxed{}", 0.0),
        ("boxed", "\\boxed{5", 0.0),
        ("boxed", "\\boxed{\\frac{1}{2}}", 1.0),
        ("boxed", "<think>\\boxed{4}</think>\\boxed{5}", 1.0),
        ("answer", "because <answer>5</answer>", 1.0),
        ("answer", "<answer>5</answer> I think", 0.0),
        ("answer", "<answer> </answer>", 0.0),
        ("answer", "<answer>4</answer><answer>5</answer>", 0.0),
        ("answer", "<answer>5", 0.0),
        ("think", "<think>hm</think>5", 1.0),
        ("think", "<think>hm</think>", 0.0),
        ("think", "hm</think>5", 0.0),
        ("think", "5 <think>hm</think>5", 0.0),
        ("think", "<think>hm</think><think>hm</think>5", 0.0),
    ],
)
def test_forms(form, text, reward):
    assert named(f"format:{form}")(completions=[text]) == [reward]
    assert named(f"format:{form}")(completions=[[{"role": "assistant", "content": text}]]) == [reward]


@pytest.mark.parametrize(
    ("tokens", "reward"), [(0, 1.0), (3072, 1.0), (3073, 1 - 1 / 1024), (3584, 0.5), (4096, 0.0), (9999, 0.0)]
)
def test_overlong_falls_in_a_line_over_the_buffer(tokens, reward):
    shape = named("overlong:4096,1024")
    assert shape(completions=["x"], completion_ids=[[0] * tokens]) == [pytest.approx(reward)]


def dapo(length: int, most: int, cache: int) -> float:
    """Equation 13 of arXiv 2503.14476, case by case."""
    if length <= most - cache:
        return 0.0
    return (most - cache - length) / cache if length <= most else -1.0


@pytest.mark.parametrize(("most", "cache"), [(20, 5), (10, 10), (7, 1)])
def test_overlong_is_dapos_formula(most, cache):
    for length in range(30):
        assert soft_overlong(length, most, cache) == pytest.approx(dapo(length, most, cache))


@pytest.mark.parametrize("option", ["", "4096", "a,b", "0,0", "100,200", "-5,1", "10,0", "1e3,5"])
def test_lengths_that_make_no_sense_are_refused(option):
    with pytest.raises(RewardError, match="overlong:MAX,BUFFER"):
        named(f"overlong:{option}")


def test_overlong_without_tokens_says_what_it_needs():
    with pytest.raises(RewardError, match="completion_ids"):
        named("overlong:10,5")(completions=["x"])


def test_a_gate_pays_only_what_is_correct_and_well_formed():
    gate = named("math&format:boxed")
    texts = ["\\boxed{5}", "the answer is 5", "\\boxed{6}", "6"]
    assert gate(completions=texts, answer=["5"] * 4) == [1.0, 0.0, 0.0, 0.0]
    assert gate(completions=["\\boxed{5}"], answer=[None]) == [None]
    assert gate.counts == {"scored": 4, "unscorable": 1, "errors": 0, "timeouts": 0}
    assert gate.__name__ == "math&format:boxed"
    assert gate.extract("\\boxed{0.5}") == "1/2"


def test_a_gate_takes_the_smallest_part():
    gate = named("number & overlong:10,5")
    assert gate(completions=["5", "5", "4"], answer=["5"] * 3, completion_ids=[[0] * 5, [0] * 8, [0] * 8]) == [
        1.0,
        pytest.approx(0.4),
        0.0,
    ]


def test_golds_are_checked_through_a_gate():
    problem = Problem(id="a", prompt="?", answer="three", extra={})
    assert [p.id for p, _ in check_golds([problem], named("number&format:boxed"))] == ["a"]
    preflight([named("format:boxed"), named("overlong:10,5")], [problem], timeout=5.0)


def test_weighted_rewards_make_one_verdict():
    rewards = resolve_rewards(["number", "format:answer"], timeout=5.0)
    both = CombinedReward(rewards, (3.0, 1.0))
    texts = ["<answer>5</answer>", "5", "<answer>6</answer>"]
    assert both(completions=texts, answer=["5"] * 3) == [1.0, 0.75, 0.25]


def test_which_rewards_need_an_answer():
    assert needs_answer(("auto",))
    assert needs_answer(("math:boxed", "format:boxed"))
    assert needs_answer(("format:boxed&number",))
    assert needs_answer(("regex:a&b",))
    assert not needs_answer(("code", "format:think", "overlong:10,5"))
    assert not needs_answer(("my_module:reward",))


def test_unknown_forms_are_named():
    with pytest.raises(RewardError, match=r"'format:box'. Did you mean 'boxed'"):
        named("format:box")
    assert "format" in str(EvalSettings.__dataclass_fields__["reward"].metadata["help"])
