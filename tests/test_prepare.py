"""Held-out problems are held out."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

from dopr.config import TrainSettings
from dopr.config_layers import build
from dopr.errors import ConfigError, DataError, RunError
from dopr.generation import check_lengths, context_of
from dopr.models import resolve_model
from dopr.policy import load_policy
from dopr.tasks.problems import Problem
from dopr.train.prepare import learning_rate, prepare, rows_per_process, run_directory

SUMS = "gym:chain_sum?min_terms=2,max_terms=2,min_digits=1,max_digits=1"


def test_a_small_generated_task_never_trains_on_held_out_prompts() -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    job = prepare(build(TrainSettings, {"data": SUMS, "size": 200, "eval_problems": 64, "reward": "number"}))
    train, held = {p.prompt for p in job.problems}, {p.prompt for p in job.held_out}
    assert train
    assert held
    assert not train & held
    assert "which share prompts" in job.held_out_from


def test_worlds_are_held_out_by_construction() -> None:
    job = prepare(build(TrainSettings, {"data": "world:mixed"}))
    assert not {p.prompt for p in job.problems} & {p.prompt for p in job.held_out}
    assert (len(job.problems), len(job.held_out)) == (2000, 256)


def write(path: Path, prompts: list[str]) -> str:
    path.write_text(
        "".join(
            json.dumps({"id": f"{path.stem}{i}", "q": 0, "prompt": p, "answer": "1"}) + "\n"
            for i, p in enumerate(prompts)
        )
    )
    return str(path)


def test_a_file_is_split_by_id_and_an_overlapping_evaluation_file_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [f"p{i}" for i in range(50)])
    job = prepare(build(TrainSettings, {"data": data}))
    assert len(job.held_out) == 5
    assert not {p.id for p in job.problems} & {p.id for p in job.held_out}
    overlapping = write(tmp_path / "b.jsonl", ["new", "p3"])
    with pytest.raises(
        ConfigError, match=r"1 training problems are also evaluation problems .* such as 'a3'.*b\.jsonl"
    ):
        prepare(build(TrainSettings, {"data": data, "eval_data": overlapping}))
    job = prepare(build(TrainSettings, {"data": data, "eval_problems": 0}))
    assert (len(job.problems), job.held_out) == (50, [])


def verl(path: Path, questions: list[str]) -> str:
    """A split as verl writes it: the index counts from 0 in each."""
    rows = [
        {
            "prompt": [{"role": "user", "content": question}],
            "reward_model": {"ground_truth": "1"},
            "extra_info": {"index": i},
        }
        for i, question in enumerate(questions)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_train_and_a_test_split_may_count_their_ids_alike(tmp_path: Path) -> None:
    data = verl(tmp_path / "train.jsonl", [f"p{i}" for i in range(50)])
    test = verl(tmp_path / "test.jsonl", [f"q{i}" for i in range(20)])
    job = prepare(build(TrainSettings, {"data": data, "eval_data": test}))
    assert (len(job.problems), len(job.held_out), job.held_out_from) == (50, 20, test)


def test_prompts_that_repeat_under_other_ids_are_not_trained_on_once_held_out(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [f"p{i % 30}" for i in range(120)])
    job = prepare(build(TrainSettings, {"data": data}))
    train, held = {json.dumps(p.prompt) for p in job.problems}, {json.dumps(p.prompt) for p in job.held_out}
    assert len(job.held_out) == 12
    assert not train & held
    assert len(train | held) == 30
    left_out = 120 - len(job.held_out) - len(job.problems)
    assert left_out > 0
    assert f"; {left_out} training problems with the same prompt left out" in job.held_out_from
    same = write(tmp_path / "same.jsonl", ["p"] * 20)
    with pytest.raises(ConfigError, match=r"Every problem of .*same\.jsonl has the prompt of one that is held out"):
        prepare(build(TrainSettings, {"data": same}))


def test_prompts_that_differ_in_white_space_alone_are_not_split(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [f"What  is{' ' * (i // 30)} p{i % 30}?{chr(10) * (i % 2)}" for i in range(120)])
    job = prepare(build(TrainSettings, {"data": data, "eval_problems": 10}))
    train, held = {p.wording for p in job.problems}, {p.wording for p in job.held_out}
    assert (len(train), len(held)) == (20, 10)
    assert not train & held
    chat = [verl(tmp_path / f"{ord(end)}.jsonl", [f"p{i}{end * 3}x" for i in range(20)]) for end in (" ", "\n")]
    text = write(tmp_path / "text.jsonl", [f"p{i} x" for i in range(20)])
    for other in (chat[1], text):  # a text is one message of the user's
        with pytest.raises(ConfigError, match="20 training problems are also evaluation problems"):
            prepare(build(TrainSettings, {"data": chat[0], "eval_data": other}))


def test_a_task_that_repeats_itself_holds_out_what_it_trains_on(caplog: pytest.LogCaptureFixture) -> None:
    """Two numbers up to 12 of which the larger is the least common multiple come more often than others."""
    pytest.importorskip("reasoning_gym")
    differences: list[float] = []
    data = "gym:lcm?min_numbers=2,max_numbers=2,min_value=2,max_value=12"
    for seed in range(8):
        job = prepare(
            build(TrainSettings, {"data": data, "size": 200, "eval_problems": 64, "seed": seed, "reward": "number"})
        )
        train, held = {str(p.prompt) for p in job.problems}, {str(p.prompt) for p in job.held_out}
        assert not train & held
        assert len(train) == len(job.problems)
        assert len(held) == len(job.held_out) == (len(train) + len(held)) // 2
        assert f"{len(held)} problems held out from both splits" in job.held_out_from
        easy = [statistics.mean(map(_is_larger, some)) for some in (job.problems, job.held_out)]
        differences.append(easy[1] - easy[0])
    assert abs(statistics.mean(differences)) < 2.4 * statistics.stdev(differences) / 8**0.5
    assert abs(statistics.mean(differences)) < 0.1
    assert "repeats itself" in caplog.text


@pytest.mark.parametrize("size", [1, 4])
def test_no_more_problems_are_trained_on_than_asked_for(size: int) -> None:
    """Whether so few draws share a prompt with the test split hangs on the seed."""
    pytest.importorskip("reasoning_gym")
    shared = 0
    for seed in range(6):
        job = prepare(build(TrainSettings, {"data": SUMS, "size": size, "seed": seed, "reward": "number"}))
        assert 1 <= len(job.problems) <= size
        shared += "share prompts" in job.held_out_from
    assert shared


def _is_larger(problem: Problem) -> bool:
    """Whether the answer is the larger of the two numbers."""
    return int(problem.answer or "") == max(map(int, re.findall(r"\d+", str(problem.prompt))[-2:]))


@pytest.mark.parametrize("reward", ["auto", "code"])
@pytest.mark.parametrize("beside", [{}, {"answer": None}, {"answer": ""}])
def test_problems_with_tests_need_no_answer(tmp_path: Path, reward: str, beside: dict[str, str | None]) -> None:
    rows = [{"prompt": f"Write f{i}.", "tests": [f"assert f{i}(1) == 1"], **beside} for i in range(12)]
    (tmp_path / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = prepare(build(TrainSettings, {"data": str(tmp_path / "code.jsonl"), "reward": reward}))
    assert job.reward_names == ("code",)
    assert {p.answer for p in [*job.problems, *job.held_out]} == {None}


def test_it_is_said_when_fewer_are_held_out_than_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, test = (write(tmp_path / f"{name}.jsonl", [f"{name}{i}" for i in range(20)]) for name in "ab")
    prepare(build(TrainSettings, {"data": data, "eval_problems": 10}))
    assert caplog.messages == []
    prepare(build(TrainSettings, {"data": data, "eval_problems": 15}))
    prepare(build(TrainSettings, {"data": data, "eval_data": test, "eval_problems": 30}))
    assert caplog.messages == [
        f"15 held-out problems were asked for, 10 are held out: at most half of the 20 in {data} may be.",
        f"30 held-out problems were asked for, 20 are held out: {test} holds no more.",
    ]


def test_the_default_learning_rate_is_lower_for_few_problems_and_a_given_one_is_kept() -> None:
    model, _ = load_policy(resolve_model("tiny"))
    default, given = TrainSettings(), TrainSettings(learning_rate=3e-4)
    rates = [learning_rate(default, model, problems) for problems in (2, 8, 32, 2000)]
    assert rates == [5e-5, 1e-4, 2e-4, 2e-4]
    assert learning_rate(given, model, 1) == 3e-4


def test_prompts_that_leave_no_room_are_named() -> None:
    model, _ = load_policy(resolve_model("tiny"))
    context = model.config.max_position_embeddings
    check_lengths(context_of(model), [[1], [1] * (context - 4)], 4, ["a", "b"])
    with pytest.raises(DataError, match=f"Prompt 'b' has {context - 3:,} tokens"):
        check_lengths(context_of(model), [[1], [1] * (context - 3)], 4, ["a", "b"])
    with pytest.raises(DataError, match="Prompt 2 is empty"):
        check_lengths(context_of(model), [[1], []], 4)


def test_several_processes_share_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "a.jsonl", [f"p{i}" for i in range(50)])
    settings = build(TrainSettings, {"data": data, "prompts_per_round": 1, "micro_batch": 4})
    assert rows_per_process(settings) == 8
    monkeypatch.setenv("WORLD_SIZE", "2")
    prepare(settings)
    assert rows_per_process(settings) == 4  # one prompt a round all the same
    with pytest.raises(RunError, match="--output"):
        run_directory(settings)  # each process would make up a name
    with pytest.raises(ConfigError, match="does not divide the 4 rows of a round for each process"):
        prepare(build(TrainSettings, {"data": data, "prompts_per_round": 1, "micro_batch": 8}))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 processes cannot share the 8 rows"):
        prepare(settings)
