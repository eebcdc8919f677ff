"""What users of TRL bring along, through the real trainer: several rewards, micro-batches, environments, processors, settings, logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed")
import torch
from datasets import Dataset

from dopr.runlog import read_events
from dopr.train.advantages import group_totals, total_reward
from dopr.train.scoring import CombinedReward
from dopr.train.watch import TopWatch
from trl_kit import byte_tokenizer, even_first_byte, random_policy, trainer

pytestmark = pytest.mark.trl

GROUPS_OF_8 = {"num_generations": 8, "per_device_train_batch_size": 8, "dopr_chunk": 2}


def picks(directory: Path) -> list[dict[str, Any]]:
    return [pick for e in read_events(directory / "out") if e["kind"] == "round" for pick in e["picks"]]


def nothing_right(completions: list[str], **_: Any) -> list[float]:
    return [0.0] * len(completions)


# -- rewards -------------------------------------------------------------------------------------------------------


def tasks() -> Dataset:
    return Dataset.from_list([{"prompt": f"q{i}: ", "task": "xy"[i % 2], "id": f"p{i}"} for i in range(24)])


def of_task(name: str, right: Callable[[str], bool]) -> Callable[..., list[float | None]]:
    def reward(completions: list[str], task: list[str], **_: Any) -> list[float | None]:
        return [float(right(c)) if t == name else None for c, t in zip(completions, task, strict=True)]

    reward.__name__ = f"of_{name}"
    return reward


def test_a_function_of_another_task_does_not_put_success_out_of_reach(tmp_path: Path) -> None:
    functions = [of_task("x", lambda c: True), of_task("y", lambda c: True)]
    t = trainer(tmp_path, reward=functions, data=tasks(), max_steps=4, **GROUPS_OF_8)
    t.train()
    assert {pick["outcome"] for pick in picks(tmp_path)} == {"all_right"}
    assert not any(pick["searched"] for pick in picks(tmp_path))
    assert all(len(pick["rewards"]) == 2 for pick in picks(tmp_path))
    assert len(t.selector.memory) == 8


def test_totals_are_raised_to_what_all_functions_give_together() -> None:
    nan = float("nan")
    rewards = torch.tensor([[1.0, nan, 0.0], [0.0, nan, 1.0], [nan, nan, nan], [1.0, 1.0, 1.0], [0.0, nan, -1.0]])
    groups, weights = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0.5, 0.3, -0.2])
    raised = group_totals(rewards, groups, weights)
    assert raised[:2].tolist() == pytest.approx([0.8, -0.32])
    assert raised[2].isnan()
    assert torch.equal(raised[3:], total_reward(rewards, weights)[3:]), "a function that failed once lowers nothing"


def test_a_penalty_needs_to_be_told_what_is_right_and_says_so(tmp_path: Path) -> None:
    def penalty(completions: list[str], **_: Any) -> list[float]:
        return [-1.0 if c and ord(c[-1]) % 3 == 0 else 0.0 for c in completions]

    told = trainer(tmp_path / "told", reward=[even_first_byte, penalty], max_steps=8, dopr_success=1.0, **GROUPS_OF_8)
    told.train()
    assert told.selector.verified_from == pytest.approx(1, abs=1e-5)
    assert len(told.selector.memory) > 0
    untold = trainer(
        tmp_path / "untold", reward=[even_first_byte, penalty], max_steps=8, dopr_warn_constant=6, **GROUPS_OF_8
    )
    untold.train()
    assert len(untold.selector.memory) == 0
    warnings = [e for e in read_events(tmp_path / "untold" / "out") if e["kind"] == "warning" and e["code"] == "top"]
    assert len(warnings) == 1
    assert "--success 1" in warnings[0]["text"]
    assert not [e for e in read_events(tmp_path / "told" / "out") if e["kind"] == "warning" and e["code"] == "top"]


def test_rewards_that_end_at_zero_have_successes(tmp_path: Path) -> None:
    def cost(completions: list[str], **_: Any) -> list[float]:
        return [0.0 if c and ord(c[0]) % 2 == 0 else -1.0 for c in completions]

    t = trainer(tmp_path, reward=cost, max_steps=6, dopr_success=0.0, **GROUPS_OF_8)
    t.train()
    assert (t.selector.scale.low, t.selector.scale.high) == (-1, 0)
    assert len(t.selector.memory) == sum(r == 0 for pick in picks(tmp_path) for r in pick["rewards"])
    for pick in picks(tmp_path):
        assert pick["success"] == pytest.approx(sum(r == 0 for r in pick["rewards"]) / len(pick["rewards"]), abs=1e-5)


def test_evaluation_judges_by_the_functions_that_score(tmp_path: Path) -> None:
    def both(success: float | None, *rewards: Any) -> list[float | None]:
        return CombinedReward(rewards, (), success)(completions=["ab", "bb", "cc"], task=["x", "x", "y"])

    x = of_task("x", lambda c: c[0] == "a")
    assert both(None, x, of_task("y", lambda c: True)) == [1.0, 0.0, 1.0]
    assert both(None, x, of_task("z", lambda c: True)) == [1.0, 0.0, None]

    def penalty(completions: list[str], **_: Any) -> list[float]:
        return [-0.5 if c == "cc" else 0.0 for c in completions]

    right = of_task("x", lambda c: True)
    assert both(1.0, right, penalty) == [1.0, 1.0, 0.0]


def test_the_watch_for_the_top_speaks_once_and_only_if_something_was_earned() -> None:
    for rewards, speaks in (([0.0, 0.5], True), ([0.0], False), ([0.0, 1.0], False), ([-1.0, 0.0], True)):
        watch = TopWatch(1.0, 4)
        said = [watch.see(rewards) for _ in range(12)]
        assert [v is not None for v in said] == [speaks and i == 3 for i in range(12)]
        again = TopWatch(1.0, 4)
        again.load_state_dict(watch.state_dict())
        assert again.see(rewards) is None
    assert all(TopWatch(1.0, 0).see([0.5]) is None for _ in range(3))


# -- updates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["dapo", "grpo", "bnpo", "dr_grpo"])
def test_micro_batches_do_not_change_the_size_of_an_update(tmp_path: Path, loss: str) -> None:
    def first_right(completions: list[str], **_: Any) -> list[float]:
        return [float(i == 0) for i in range(len(completions))]

    norms = []
    for micro in (8, 4, 2, 1):
        t = trainer(
            tmp_path / str(micro), reward=first_right, max_steps=1, num_generations=8, per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // micro, dopr_chunk=2, dopr_replay=0, loss_type=loss, max_grad_norm=0.0,
        )  # fmt: skip
        seen: list[float | None] = []
        usual = t._gradient_norm

        def noting(usual: Any = usual, seen: list[float | None] = seen) -> tuple[bool, float | None]:
            known, norm = usual()
            seen.append(norm)
            return known, norm

        t._gradient_norm = noting
        t.train()
        assert len(picks(tmp_path / str(micro))[0]["rewards"]) == 2
        norms.append(seen[-1])
    # These two are means of means over micro-batches: by TRL's own definition equal only where completions are of one length.
    assert norms == pytest.approx([norms[0]] * 4, rel=1e-4 if loss != "bnpo" else 0.35)
    assert norms[0]


@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_text_of_an_environment_is_not_replayed_and_searches_leave_it_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rollout(prompts: list[str], t: Any) -> dict[str, Any]:
        ids = t.processing_class(text=prompts)["input_ids"]
        wrote = [
            t.model.generate(torch.tensor([i]), max_new_tokens=2, do_sample=True)[0, len(i) :].tolist() for i in ids
        ]
        return {
            "prompt_ids": ids, "completion_ids": [[*w, 69, 65] for w in wrote], "logprobs": None,
            "env_mask": [[*[1] * len(w), 0, 1] for w in wrote],
        }  # fmt: skip

    t = trainer(tmp_path, max_steps=6, extra={"rollout_func": rollout}, **GROUPS_OF_8)
    with caplog.at_level(logging.WARNING, logger="dopr"):
        t.train()
    assert any(r == 1.0 for pick in picks(tmp_path) for r in pick["rewards"])
    assert len(t.selector.memory) == 0
    assert sum("are not replayed" in record.message for record in caplog.records) == 1
    two = trainer(
        tmp_path / "two", reward=nothing_right, max_steps=1, num_generations=8, per_device_train_batch_size=16, dopr_chunk=2,
        extra={"rollout_func": rollout},
    )  # fmt: skip
    two.train()
    assert [(len(p["rewards"]), p["searched"]) for p in picks(tmp_path / "two")] == [(8, 0), (8, 0)]


# -- models and tokenizers -----------------------------------------------------------------------------------------


def test_a_model_with_a_processor_trains_on_text(tmp_path: Path) -> None:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    plain = byte_tokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain._tokenizer, pad_token="<pad>", eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    policy = LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=LlamaConfig(vocab_size=260, pad_token_id=256, eos_token_id=257, bos_token_id=257, **small),
            vision_config=CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=32, **small),
            image_token_index=258, image_seq_length=4,
        )
    )  # fmt: skip
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28)
    processor = LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default", image_token="<image>"
    )  # fmt: skip
    t = trainer(tmp_path, policy=policy, processor=processor, max_steps=3, **GROUPS_OF_8)
    t.train()
    assert t.spent.updates == 3
    assert t.selector.clustered


def test_what_the_checkpoint_asks_of_generation_does_not_shape_rollouts(tmp_path: Path) -> None:
    texts: list[str] = []

    def noting(completions: list[str], **_: Any) -> list[float]:
        texts.extend(completions)
        return nothing_right(completions)

    settings: dict[str, Any] = {"reward": noting, "max_steps": 1, "dopr_strategy": "random-one", "num_generations": 8,
                                "per_device_train_batch_size": 8}  # fmt: skip
    distinct = {}
    for given in (None, 1.0):
        texts.clear()
        policy = random_policy()
        policy.generation_config.min_p = 1.0  # all draws would be the likeliest token
        trainer(tmp_path / str(given), policy=policy, min_p=given, **settings).train()
        distinct[given] = len(set(texts))
    assert distinct == {None: 8, 1.0: 1}, "only what the user asks for"


def test_options_of_the_chat_template_reach_features_probe_and_training_alike(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if not enable_thinking %}!{% endif %}"
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": f"q{i}"}], "id": str(i)} for i in range(12)])
    usual, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        t = trainer(
            tmp_path,
            reward=nothing_right,
            data=data,
            max_steps=1,
            chat_template_kwargs={"enable_thinking": True},
            **GROUPS_OF_8,
        )
        seen: list[Any] = []
        tokenize = t._tokenize_prompts
        t._tokenize_prompts = lambda prompts: (seen.append(tokenize(prompts)), seen[-1])[1]
        t.train()
        assert tokenizer.decode(seen[0][0][0]).startswith("q")
        assert not tokenizer.decode(seen[0][0][0]).endswith("!")
        mine = {tuple(ids) for ids in t.token_ids(list(data["prompt"]))}
        assert {tuple(ids) for call in seen for ids in call[0]} <= mine
    finally:
        tokenizer.chat_template = usual


def test_options_of_the_chat_template_are_settings_of_every_command() -> None:
    from dopr.cli.options import read_settings
    from dopr.config import CompareSettings, EvalSettings, TrainSettings
    from dopr.generation import Sampling, generate

    for settings in (TrainSettings, EvalSettings, CompareSettings):
        given = read_settings(settings, None, {"chat_option": ("enable_thinking=false", "level=3")})
        assert given.chat_option == {"enable_thinking": False, "level": 3}
    tokenizer, policy = byte_tokenizer(), random_policy()
    usual, tokenizer.chat_template = tokenizer.chat_template, "{{ messages[0]['content'] }}{% if level %}!{% endif %}"
    asked: list[str] = []
    draw = policy.generate
    policy.generate = lambda **k: (asked.append(tokenizer.decode(k["input_ids"][0])), draw(**k))[1]
    try:
        for options in ({}, {"level": 3}):
            generate(
                policy,
                tokenizer,
                [[{"role": "user", "content": "q"}]],
                Sampling(max_new_tokens=1, chat_options=options),
            )
    finally:
        tokenizer.chat_template = usual
    assert asked == ["q", "q!"]


# -- logs, checkpoints, going on -----------------------------------------------------------------------------------


def test_the_log_tells_of_whole_rounds_and_of_the_policys_own_rows(tmp_path: Path) -> None:
    t = trainer(
        tmp_path, max_steps=18, beta=0.05, dopr_replay=4, dopr_replay_updates=1, logging_steps=1000, learning_rate=1e-2,
        log_completions=True, **GROUPS_OF_8,
    )  # fmt: skip
    own: list[tuple[float, float]] = []
    usual = t._compute_loss

    def noting(model: Any, inputs: dict[str, Any]) -> Any:
        loss = usual(model, inputs)
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1) * (inputs["dopr_group"] >= 0)[:, None]
        if mask.sum():
            _, entropies = t.captured_tokens
            apart = inputs["ref_per_token_logps"] - t.log_probabilities(inputs)
            kl = torch.exp(apart) - apart - 1
            own.append((float((entropies * mask).sum() / mask.sum()), float((kl * mask).sum() / mask.sum())))
        return loss

    t._compute_loss = noting
    kept: list[float] = []
    log = t.log
    t.log = lambda logs, *a: (kept.extend(t._logs["advantages"]), log(logs, *a))[1]
    t.train()
    logged = {name: value for entry in t.state.log_history for name, value in entry.items()}
    groups = [pick["rewards"] for pick in picks(tmp_path)]
    assert len(groups) < 18, "some updates were replayed rows alone"
    assert logged["reward"] == pytest.approx(sum(sum(g) / len(g) for g in groups) / len(groups), abs=1e-6)
    assert logged["frac_reward_zero_std"] == pytest.approx(sum(len(set(g)) == 1 for g in groups) / len(groups))
    entropy, kl = (sum(column) / len(own) for column in zip(*own, strict=True))
    assert logged["entropy"] == pytest.approx(entropy, rel=1e-3)
    assert logged["kl"] == pytest.approx(kl, rel=1e-3)
    assert logged["dopr/rollouts_total"] == t.spent.rollouts
    assert any(abs(a) > 0.1 for a in kept), "advantages as they are learned from"


def test_replayed_rows_are_counted_as_dealt(tmp_path: Path) -> None:
    t = trainer(
        tmp_path, max_steps=12, num_generations=8, per_device_train_batch_size=1, gradient_accumulation_steps=8, dopr_chunk=2,
        dopr_replay=8,
    )  # fmt: skip
    rows: dict[int, int] = {}
    usual = t._compute_loss

    def noting(model: Any, inputs: dict[str, Any]) -> Any:
        rows[t.round] = rows.get(t.round, 0) + int((inputs["dopr_group"] < 0).sum())
        return usual(model, inputs)

    t._compute_loss = noting
    t.train()
    rounds = {e["round"]: e["replayed"] for e in read_events(tmp_path / "out") if e["kind"] == "round"}
    assert rounds == rows
    assert set(rounds.values()) == {0, 8}


def test_checkpoints_of_the_model_alone_are_kept_as_asked(tmp_path: Path) -> None:
    t = trainer(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=3, save_only_model=True, max_steps=5)
    t.train()
    assert sorted(p.name for p in (tmp_path / "out").glob("checkpoint-*")) == [f"checkpoint-{n}" for n in (3, 4, 5)]


def test_a_trainer_that_was_stopped_trains_on(tmp_path: Path) -> None:
    t = trainer(tmp_path, reward=nothing_right, max_steps=20, dopr_stop_constant=3)
    t.train()
    first = t.state.global_step
    t.train()
    assert (first, t.state.global_step) == (3, 3), "another three rounds, not one"


def test_another_run_in_the_same_directory_has_a_log_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in (0, 1):
        t = trainer(tmp_path, max_steps=3, seed=seed)
        with caplog.at_level(logging.WARNING, logger="dopr"):
            t.train()
    assert [e["round"] for e in read_events(tmp_path / "out") if e["kind"] == "round"] == [1, 2, 3]
    earlier = read_events(tmp_path / "out", "events.before-restart-1.jsonl")
    assert [e["round"] for e in earlier if e["kind"] == "round"] == [1, 2, 3]
    assert any("held an earlier run's rounds" in record.message for record in caplog.records)
    t.train()
    assert [e["round"] for e in read_events(tmp_path / "out") if e["kind"] == "round"] == [1, 2, 3, 4, 5, 6]
