from __future__ import annotations

import json
import os
import shutil
import sys
import types
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli_kit import dopr, sums, write_jsonl
from dopr.errors import ConfigError, DataError, ModelError, RunError
from dopr.evaluate import Sampling
from dopr.evaluate_set import COMPLETIONS, evaluate_set, open_folder, write_summary
from dopr.generation import generate
from dopr.policy import load_policy
from dopr.tasks.answers import gold_text
from dopr.tasks.known_sets import KNOWN_SETS, find_set
from dopr.tasks.problems import load_problems, to_rows
from dopr.tasks.rewards import resolve_rewards
from dopr.tasks.tiny import tiny_policy_path

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SAMPLING = Sampling(n=2, temperature=1.0, max_new_tokens=4, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def tiny():
    model, tokenizer = load_policy(str(tiny_policy_path()), device="cpu")
    return lambda prompts, sampling: generate(model, tokenizer, prompts, sampling)


@pytest.fixture(scope="module")
def rows():
    return [{"prompt": f"What is {r['question'][8:-1]}?=", "answer": r["answer"], "id": r["id"]} for r in sums(23)]


@pytest.fixture
def reward():
    (reward,) = resolve_rewards(["number"], timeout=5.0)
    return reward


class StopError(Exception):
    pass


def stopping(generate, after):
    """A backend that fails after some chunks, as a killed process would."""
    calls = []

    def backend(prompts, sampling):
        if len(calls) >= after:
            raise StopError
        calls.append(len(prompts))
        return generate(prompts, sampling)

    return backend


def test_a_stopped_evaluation_goes_on_to_the_same_result(tiny, rows, reward, tmp_path):
    whole = evaluate_set(tiny, rows, reward, sampling=SAMPLING)
    folder = tmp_path / "eval"
    open_folder(folder, {"n": 2})
    for after in (1, 0, 3):
        with pytest.raises(StopError):
            evaluate_set(stopping(tiny, after), rows, reward, sampling=SAMPLING, folder=folder)
    written = (folder / COMPLETIONS).read_text()
    assert len(written.splitlines()) == 4 * 4  # four chunks of eight completions, two per problem
    (folder / COMPLETIONS).write_text(written + written.splitlines()[0][:20])  # killed in the middle of a line
    drawn = []

    def counting(prompts, sampling):
        drawn.append(len(prompts))
        return tiny(prompts, sampling)

    resumed = evaluate_set(counting, rows, reward, sampling=SAMPLING, folder=folder)
    assert sum(drawn) == 23 - 16
    assert [[c.text for c in row] for row in resumed.completions] == [
        [c.text for c in row] for row in whole.completions
    ]
    assert resumed.rewards == whole.rewards
    assert resumed.tokens == whole.tokens
    one, other = resumed.summary(), whole.summary()
    assert one | {"seconds": 0} == other | {"seconds": 0}


def test_every_finished_problem_is_on_disk_with_its_completions(tiny, rows, reward, tmp_path):
    folder = tmp_path / "eval"
    open_folder(folder, {})
    with pytest.raises(StopError):
        evaluate_set(stopping(tiny, 2), rows, reward, sampling=SAMPLING, folder=folder)
    records = [json.loads(line) for line in (folder / COMPLETIONS).read_text().splitlines()]
    assert len(records) == 8
    assert all(len(r["completions"]) == len(r["rewards"]) == len(r["tokens"]) == 2 for r in records)
    evaluation = evaluate_set(tiny, rows, reward, sampling=SAMPLING, folder=folder)
    path = write_summary(folder, evaluation, None)
    assert json.loads(path.read_text())["problems"] == 23
    ids = [json.loads(line)["id"] for line in (folder / COMPLETIONS).read_text().splitlines()]
    assert ids == [row["id"] for row in rows]


def test_greedy_chunks_equal_one_evaluation(tiny, rows, reward):
    from dopr.evaluate import evaluate

    model, tokenizer = load_policy(str(tiny_policy_path()), device="cpu")
    sampling = Sampling(max_new_tokens=4, batch_size=5)
    whole = evaluate(model, tokenizer, rows, reward, sampling=sampling)
    chunks = evaluate_set(tiny, rows, reward, sampling=sampling)
    assert chunks.rewards == whole.rewards
    assert chunks.extracted == whole.extracted


def test_other_settings_are_named_and_nothing_is_overwritten(tmp_path):
    open_folder(tmp_path / "e", asdict(SAMPLING) | {"model": "a"})
    open_folder(tmp_path / "e", asdict(SAMPLING) | {"model": "a"})
    open_folder(
        tmp_path / "e", asdict(SAMPLING) | {"model": "c"}
    )  # nothing was drawn yet: a corrected command may go on
    (tmp_path / "e" / "completions.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="model 'c' there, 'b' now"):
        open_folder(tmp_path / "e", asdict(SAMPLING) | {"model": "b"})
    with pytest.raises(RunError, match="is a file"):
        open_folder(tmp_path / "e" / "completions.jsonl", {})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "evaluation.json").write_text("{}")
    with pytest.raises(RunError, match="unknown settings"):
        open_folder(tmp_path / "old", {})


def test_an_evaluation_of_other_weights_at_the_same_place_is_refused(tmp_path):
    shutil.copytree(tiny_policy_path(), tmp_path / "model")
    write_jsonl(tmp_path / "p.jsonl", sums(4))
    command = ["eval", "--model", "model", "--data", "p.jsonl", "--max-completion-length", "4", "--output", "e"]
    dopr(tmp_path, *command)
    assert "4 problems" in dopr(tmp_path, *command)  # as it stands
    weights = tmp_path / "model" / "model.safetensors"
    os.utime(weights, ns=(1, 1))  # what training it further does, among other things
    assert "weights" in dopr(tmp_path, *command, code=2)


def test_a_run_is_evaluated_as_it_evaluated_itself_or_not_at_all(tmp_path):
    output = dopr(tmp_path, "eval", "--run", "nowhere", "-n", "16", "--temperature", "0.6", "--data", "x.jsonl", code=2)
    assert "data, n would have no effect" in " ".join(output.split())


def test_several_sets_in_one_call(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", sums(7))
    write_jsonl(tmp_path / "math500.jsonl", [{"problem": f"{k} + 1 = ?", "answer": str(k + 1)} for k in range(5)])
    command = ["eval", "--sets", "a.jsonl", "--sets", "math500", "--data-dir", ".", "-n", "2", "--max-completion-length", "4", "--output", "out"]  # fmt: skip
    text = dopr(tmp_path, *command)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]
    assert {name: s["problems"] for name, s in summary.items()} == {"a": 7, "math500": 5}
    assert set(summary["a"]["metrics"]) == {"avg@2", "pass@2", "maj@2"}
    assert [line.strip() for line in text.splitlines() if line.startswith("tiny")] == [
        "tiny on a.jsonl",
        "tiny on math500.jsonl",
        "tiny",
    ]
    settings = json.loads((tmp_path / "out" / "math500" / "settings.json").read_text())
    assert (settings["template"], settings["reward"]) == ("boxed", ["math"])
    before = (tmp_path / "out" / "a" / "completions.jsonl").read_text()
    dopr(tmp_path, *command)
    assert (tmp_path / "out" / "a" / "completions.jsonl").read_text() == before
    assert "seed 0 there, 1 now" in dopr(tmp_path, *command, "--seed", "1", code=2)
    # The table over all sets replaces nothing but itself.
    kept = (tmp_path / "out" / "summary.json").read_bytes()
    other = [*command[:2], "b.jsonl", *command[3:]]
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert "is of tiny on a, math500 and would be lost" in dopr(tmp_path, *other, code=2)
    assert (tmp_path / "out" / "summary.json").read_bytes() == kept
    (tmp_path / "out" / "config.json").write_text("{}")
    assert "out is a run's directory" in dopr(tmp_path, *command, code=2)
    assert (tmp_path / "out" / "summary.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-n", "0"], "n is 0"),
        (["-n", "2", "-k", "5"], "pass@5 cannot be measured with 2 samples"),
        (["-n", "2", "-k", "0"], "pass@k needs a k of at least 1; got 0"),
    ],
)
def test_counts_are_checked_before_the_model_is_sought(tmp_path, flags, words):
    write_jsonl(tmp_path / "a.jsonl", sums(3))
    assert words in dopr(tmp_path, "eval", "--model", "/nonexistent/m", "--data", "a.jsonl", *flags, code=2)


def test_a_prompt_too_long_is_named_before_any_set_is_generated(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", sums(3))
    long = {"id": "whale", "question": "What is 1 + 1? " * 500, "answer": "2"}
    write_jsonl(tmp_path / "b.jsonl", [*sums(3), long, *sums(5)[3:]])
    command = ["eval", "--sets", "a.jsonl", "--sets", "b.jsonl", "--max-completion-length", "4", "--output", "out"]
    output = dopr(tmp_path, *command, code=2)
    assert "b.jsonl: Prompt 'whale' has " in output
    assert "Traceback" not in output
    assert not (tmp_path / "out").exists()


def test_known_sets_are_found_as_local_copies_or_on_the_hub(tmp_path):
    assert find_set("aime24", None) == ("HuggingFaceH4/aime_2024", "train")
    (tmp_path / "gsm8k_test.parquet").write_text("")
    assert find_set("gsm8k", str(tmp_path)) == (str(tmp_path / "gsm8k_test.parquet"), "test")
    with pytest.raises(DataError, match="holds no copy of amc23"):
        find_set("amc23", str(tmp_path))
    assert all(known.problems > 0 for known in KNOWN_SETS.values())


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime24", "amc23"])
def test_local_copies_of_known_sets_load_whole(name):
    source, split = find_set(name, str(REAL))
    problems = load_problems(source, split=split)
    assert len(problems) == KNOWN_SETS[name].problems
    assert all(problem.answer for problem in problems)
    assert len({row["id"] for row in to_rows(problems)}) == len(problems)


def test_a_list_of_answers_is_one_gold(tmp_path):
    assert gold_text(["$x=2$", 3]) == "$x=2$, 3"
    write_jsonl(tmp_path / "olympiadbench.jsonl", [{"question": "Roots?", "final_answer": ["2", "3"]}])
    (problem,) = load_problems(str(tmp_path / "olympiadbench.jsonl"))
    (math,) = resolve_rewards(["math"], timeout=10.0)
    assert math(completions=["\\boxed{3, 2}", "\\boxed{2}"], answer=[problem.answer] * 2) == [1.0, 0.0]


def test_vllm_is_asked_for_the_same_prompts_and_sampling(monkeypatch):
    """Against a stand-in for vLLM's interface, which cannot run here: what it is given, and how its answer is read."""
    asked = {}

    class LLM:
        def __init__(self, **options):
            asked["options"] = options
            self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=16))

        def get_tokenizer(self):
            return lambda texts: {"input_ids": [[1] * len(text) for text in texts]}

        def generate(self, prompts, parameters, use_tqdm):
            asked["prompts"], asked["parameters"] = prompts, parameters
            ends = ["stop", "length"]
            return [SimpleNamespace(outputs=[SimpleNamespace(text=f"t{k}", token_ids=[5] * (k + 1), finish_reason=ends[k])
                                             for k in range(2)]) for _ in prompts]  # fmt: skip

    vllm = types.ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = LLM, SimpleNamespace
    vllm.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    from dopr.vllm_generation import VLLMBackend

    backend = VLLMBackend("some/model", dtype="bfloat16", seed=7)
    ((first, second), _) = backend(["abc", "ab"], Sampling(n=2, temperature=0.6, top_p=0.9, max_new_tokens=8, seed=11))
    assert asked["options"] == {"model": "some/model", "dtype": "bfloat16", "seed": 7}
    assert asked["prompts"] == [{"prompt_token_ids": [1, 1, 1]}, {"prompt_token_ids": [1, 1]}]
    chosen = vars(asked["parameters"])
    assert (chosen["n"], chosen["temperature"], chosen["top_p"], chosen["top_k"], chosen["max_tokens"]) == (
        2,
        0.6,
        0.9,
        -1,
        8,
    )
    assert chosen["seed"] == 11
    assert (first.text, first.n_tokens, first.truncated) == ("t0", 1, False)
    assert (second.n_tokens, second.truncated) == (2, True)
    with pytest.raises(DataError, match="more than the model's context of 16"):
        backend(["abcdefghijk"], Sampling(max_new_tokens=8))


def test_vllm_where_it_is_missing_and_with_an_adapter_is_explained(tmp_path, monkeypatch):
    from dopr.vllm_generation import VLLMBackend

    with pytest.raises(ModelError, match="pip install vllm"):
        VLLMBackend("some/model")
    vllm = types.ModuleType("vllm")
    vllm.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a LoRA adapter"):
        VLLMBackend(str(tmp_path))
