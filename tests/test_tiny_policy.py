from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopr.errors import ConfigError, ModelError
from dopr.tasks import tiny
from dopr.tasks.worlds import WORLD_NAMES, load_world, world_info

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")
worlds = pytest.mark.parametrize("name", WORLD_NAMES)


@pytest.fixture(scope="module")
def policy():
    return tiny.load_tiny_policy()


def rates(policy, problems, samples, seed=0):
    """Share of right completions per problem at temperature 1, prompts left-padded as in training."""
    model, tokenizer = policy
    inputs = tokenizer([p.prompt for p in problems], return_tensors="pt", padding=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = model.generate(**inputs, num_return_sequences=samples)
    texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [text.rsplit("=", 1)[-1] == problems[i // samples].answer for i, text in enumerate(texts)]
    return [sum(right[i : i + samples]) / samples for i in range(0, len(right), samples)]


def test_the_checkpoint_is_small_and_plain_float32(policy):
    model, _ = policy
    path = tiny.tiny_policy_path()
    assert sum(f.stat().st_size for f in path.iterdir()) < 6e6
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= {
        f.name for f in path.iterdir()
    }


@given(text=st.text(max_size=60))
@settings(deadline=None)
def test_any_text_survives_encoding_and_decoding(policy, text):
    _, tokenizer = policy
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_one_token_per_byte_and_no_special_token_among_them(policy):
    _, tokenizer = policy
    ids = tokenizer.encode("naïve ✓")
    assert len(ids) == len("naïve ✓".encode())
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids)


def test_the_chat_template_only_joins_contents(policy):
    _, tokenizer = policy
    messages = [{"role": "system", "content": "a{b}<"}, {"role": "user", "content": " rivi 4173:"}]
    for generation_prompt in (False, True):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
        assert text == "a{b}< rivi 4173:"


def test_padding_a_prompt_does_not_change_what_is_generated(policy):
    model, tokenizer = policy
    prompts = ["rivi 4173:", "What is 3 + 4?", "sum 385:"]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    width = batch["input_ids"].shape[1]
    together = tokenizer.batch_decode(model.generate(**batch, do_sample=False)[:, width:], skip_special_tokens=True)
    for prompt, text in zip(prompts, together, strict=True):
        alone = tokenizer([prompt], return_tensors="pt")
        output = model.generate(**alone, do_sample=False)[0, alone["input_ids"].shape[1] :]
        assert tokenizer.decode(output, skip_special_tokens=True) == text


def test_completions_end_by_themselves_within_the_stated_limit(policy):
    model, tokenizer = policy
    for name in WORLD_NAMES:
        problems = load_world(name, split="test")
        inputs = tokenizer([p.prompt for p in problems], return_tensors="pt", padding=True)
        limit = world_info(name).max_completion_tokens
        output = model.generate(**inputs, max_new_tokens=limit)[:, inputs["input_ids"].shape[1] :]
        ended = (output == tokenizer.eos_token_id).any(1)
        assert ended.float().mean() > 0.99


@worlds
def test_the_recorded_rates_are_near_the_design(name):
    measured = tiny.measured_success(name)
    for skill in world_info(name).skills:
        m, slack = measured[skill.name], max(0.015, 0.25 * skill.base_success)
        # The rate itself carries sampling noise, so what must come near the design is its 95 % interval.
        assert m.low - slack < skill.base_success < m.high + slack, skill.name
        assert abs(m.rate - skill.base_success) < 1.5 * slack, skill.name
        assert m.low <= m.rate <= m.high


@worlds
def test_sampled_success_agrees_with_the_recorded_rates(policy, name):
    problems = load_world(name, split="test", seed=1)
    sampled = rates(policy, problems, samples=16)
    measured = tiny.measured_success(name)
    # Tested per skill at 5 standard errors, those of the recorded rate and of prompts within a skill included.
    for skill in {p.extra["skill"] for p in problems}:
        mine = [r for r, p in zip(sampled, problems, strict=True) if p.extra["skill"] == skill]
        p = measured[skill].rate
        error = math.sqrt(max(p * (1 - p), 0.002) / (16 * len(mine)))
        assert abs(sum(mine) / len(mine) - p) < 5 * error + 0.02, skill


def test_groups_of_eight_on_mixed_are_as_uneven_as_a_real_problem_set(policy):
    problems = load_world("mixed", split="test", seed=2)
    first = rates(policy, problems, samples=8)
    n = len(first)
    assert sum(first) / n == pytest.approx(0.33, abs=0.05)
    assert sum(r == 1 for r in first) / n == pytest.approx(0.08, abs=0.05)
    assert sum(r == 0 for r in first) / n == pytest.approx(0.36, abs=0.07)


def test_a_newcomers_arithmetic_has_something_to_learn_from(policy):
    model, tokenizer = policy
    questions = [(f"What is {a} + {b}?", a + b) for a in range(10) for b in range(10)]
    inputs = tokenizer([q for q, _ in questions], return_tensors="pt", padding=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = model.generate(**inputs, num_return_sequences=8)[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(output, skip_special_tokens=True)
    right = [text == f" {questions[i // 8][1]}" for i, text in enumerate(texts)]
    assert sum(right) / len(right) == pytest.approx(0.4, abs=0.1)


def test_the_record_says_how_the_checkpoint_was_made():
    made = json.loads((tiny.tiny_policy_path() / "worlds.json").read_text())["made"]
    assert made["command"].startswith("python scripts/make_tiny_policy.py")


def test_an_unknown_world_has_no_measured_rates():
    with pytest.raises(
        ConfigError, match="Known: latent-strategy, mixed, mostly-hopeless, mostly-mastered, shared-skill"
    ):
        tiny.measured_success("arithmetic")


def test_a_missing_checkpoint_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny, "files", lambda package: tmp_path)
    with pytest.raises(ModelError, match="installation is incomplete"):
        tiny.tiny_policy_path()
