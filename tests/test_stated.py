"""Searches that leave out answers: where an answer is stated, what is drawn then, and the real trainer."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("trl", reason="TRL is not installed")

from dopr.tasks.rewards import resolve_rewards  # noqa: E402
from dopr.train.stated import StatedAnswers, stated_answers  # noqa: E402
from dopr.train.untried import Node, Stated, WithoutReplacement, tree_of  # noqa: E402

pytestmark = pytest.mark.trl
Tokens = tuple[int, ...]


class Characters:
    """A tokenizer of characters; token 0 is the end."""

    def decode(self, tokens: Tokens, *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(token) for token in tokens if token)


def tokens_of(text: str) -> Tokens:
    return tuple(map(ord, text.replace("$", "\0")))


def reader(reward: str) -> StatedAnswers:
    answers = stated_answers(resolve_rewards([reward], timeout=5), Characters())
    assert answers is not None
    return answers


@pytest.mark.parametrize(
    ("reward", "completion", "end"),
    [
        ("number", "4. This", "4"),
        ("number", "-4, or so$", "-4"),
        ("number", "12 plus 7 is 19.$", "12 plus 7 is 19"),
        ("number", "no idea$", None),
        ("number", "4", "4"),
        ("number", "$", None),
        ("world", "s=ab$", "s=ab"),
        ("exact", "Paris.$", "Paris."),
        ("choice", "The answer is (B) as", "The answer is (B"),
        ("math", "so it is \\boxed{5}, since", "so it is \\boxed{5}"),
        (r"regex:^(\w)", "word", "w"),
        ("code", "```python\nx = 1\n```\nThis sets x.$", "```python\nx = 1\n```"),
    ],
)
def test_an_answer_ends_where_nothing_changes_it_any_more(reward: str, completion: str, end: str | None) -> None:
    found = reader(reward).end(tokens_of(completion))
    assert (None if found is None else completion[:found]) == end


def test_next_tokens_that_change_the_answer() -> None:
    answers = reader("number")
    assert answers.changed_by(tokens_of("1"), tokens_of("2. x$5")) == list(tokens_of("25"))
    assert answers.changed_by(tokens_of("1."), tokens_of("2. x$5")) == list(tokens_of("25"))


def test_only_a_named_verifier_alone_is_known_to_judge_by_the_answer() -> None:
    def own(completions: list[str], **_: Any) -> list[float]:
        return [0.0 for _ in completions]

    own.extract = str.strip  # type: ignore[attr-defined]
    for rewards in (["number"], ["math"], ["choice"]):
        assert stated_answers(resolve_rewards(rewards, timeout=5), Characters()) is not None
    for rewards in (["number", "format:boxed"], ["number&format:boxed"], ["format:boxed"], ["number", "exact"]):
        assert stated_answers(resolve_rewards(rewards, timeout=5), Characters()) is None
    assert stated_answers([own], Characters()) is None


# -- what is drawn -------------------------------------------------------------------------------------------------

VOCABULARY, LENGTH, TEMPERATURE = tokens_of("$12x"), 3, 0.7


def completions() -> list[Tokens]:
    """All of up to three characters, in places of the vocabulary; 0 ends them."""
    free = [c for n in range(LENGTH + 1) for c in itertools.product(range(1, 4), repeat=n)]
    return [c if len(c) == LENGTH else (*c, 0) for c in free]


def log_softmax(x: Any) -> Any:
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def drawn_from(failed: list[Tokens], seed: int) -> tuple[dict[Tokens, float], dict[Tokens, float], Node]:
    """Every completion's own probability, and that in a search after ``failed``."""
    rng = np.random.default_rng(seed)
    free = [c for n in range(LENGTH) for c in itertools.product(range(4), repeat=n)]
    logits = {c: rng.normal(size=4) * rng.choice([1, 3]) for c in free}
    answers = reader("number")
    text = {c: tuple(VOCABULARY[place] for place in c) for c in completions()}

    def logps(c: Tokens, i: int) -> Any:
        return log_softmax(logits[c[:i]] / TEMPERATURE)

    stated = []
    for c in failed:
        end = answers.end(text[c])
        if end is None or end == len(c):
            stated.append(None)
        else:
            chances = np.exp(logps(c, end))
            changed = answers.changed_by(text[c][:end], VOCABULARY)
            stated.append(Stated(end, {i: float(chances[i]) for i in range(4) if VOCABULARY[i] in changed}))
    tree = tree_of(failed, [[float(logps(c, i)[t]) for i, t in enumerate(c)] for c in failed], stated)
    own, now = {}, {}
    for c in completions():
        process = WithoutReplacement([tree], TEMPERATURE)
        own[c] = math.exp(sum(logps(c, i)[t] for i, t in enumerate(c)))
        total = 0.0
        for i, t in enumerate(c):
            so_far = torch.tensor([[0, *c[:i]]], dtype=torch.long)
            scores = process(so_far, torch.tensor(logits[c[:i]][None], dtype=torch.float32))
            total += log_softmax(scores[0].double().numpy() / TEMPERATURE)[t]
        now[c] = math.exp(total)
    return own, now, tree


def written(c: Tokens) -> str:
    return "".join(chr(VOCABULARY[place]) for place in c).replace("\0", "$")


@pytest.mark.parametrize("seed", range(4))
def test_answers_that_failed_are_left_out_and_all_else_keeps_its_proportions(seed: int) -> None:
    failed = [
        (1, 0),
        (3, 2, 3),
    ]  # "1$" and "x2x": nothing that begins with 1 but goes on to another number, nor with x2
    own, now, tree = drawn_from(failed, seed)
    out = {c for c in own if written(c).startswith(("1$", "1x", "x2$", "x2x"))}
    assert {written(c) for c in out} == {"1$", "1x$", "1xx", "1x1", "1x2", "x2$", "x2x"}
    mass = sum(own[c] for c in out)
    assert tree.tried == pytest.approx(mass, rel=1e-4)
    for c, chance in own.items():
        assert now[c] == pytest.approx(0 if c in out else chance / (1 - mass), rel=2e-3, abs=1e-4)


def test_a_number_on_the_way_to_another_answer_is_not_taken_for_the_answer() -> None:
    for failed, closed in (
        ([(1, 0)], True),
        ([(1, 0), (1, 3, 2)], False),  # "1$", "1x2": who begins with 1 may go on to something else
        ([(1, 0), (1, 3, 2), (1, 3, 0)], True),  # "1x$", too
    ):
        own, now, tree = drawn_from(failed, 0)
        assert tree.children[1].closed == closed
        assert (now[1, 3, 1] == pytest.approx(0, abs=1e-12)) == closed
        assert now[1, 1, 0] > own[1, 1, 0]  # 11 is another answer


def test_a_beginning_that_nothing_can_change_is_tried_altogether() -> None:
    tree = tree_of([(1, 0), (3, 0)], [[-1.0, -0.1], [-2.0, -0.1]], [Stated(1, {}), None])
    assert tree.children[1].tried == 1
    process = WithoutReplacement([tree], 1.0)
    scores = process(torch.zeros((1, 1), dtype=torch.long), torch.zeros((1, 4)))
    assert scores[0].softmax(-1)[1] < 1e-20
    scores = process(torch.tensor([[0, 1]]), torch.arange(4.0)[None])  # should rounding lead there all the same
    assert torch.allclose(scores.softmax(-1), torch.arange(4.0).softmax(-1)[None])


# -- through the trainer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_the_trainer_draws_no_failed_answer_again(tmp_path: Path, named: bool) -> None:
    """The answer is the first character; with a function of the user's only whole completions are left out."""
    from datasets import Dataset

    from trl_kit import trainer

    (verifier,) = resolve_rewards([r"regex:^([\x20-\x7e])"], timeout=5)

    def own(completions: list[str], **columns: Any) -> list[float | None]:
        return verifier(completions, **columns)

    data = Dataset.from_list([{"prompt": f"q{i}: ", "answer": "none", "id": f"p{i}"} for i in range(8)])
    t = trainer(
        tmp_path, reward=verifier if named else own, data=data, dopr_chunk=2, dopr_wrong_cap=24, num_generations=8,
        per_device_train_batch_size=8, temperature=0.02, max_completion_length=3, max_steps=3,
        dopr_options={"clusters": 5, "search_depth": 1},
    )  # fmt: skip
    texts: list[str] = []
    score = t._calculate_rewards

    def scored(inputs: Any, prompts: Any, completions: list[str], *rest: Any) -> Any:
        texts.extend(completions)
        return score(inputs, prompts, completions, *rest)

    t._calculate_rewards = scored  # type: ignore[method-assign]
    t.train()
    assert len(texts) == 3 * 24
    repeats = 0
    for group in (texts[:24], texts[24:48], texts[48:]):
        answers = [answer for answer in map(verifier.extract, group) if answer is not None]
        repeats += len(answers) - len(set(answers))
    # Of the first two, drawn at once, the second may repeat the first.
    assert repeats <= 3 if named else repeats > 12
