"""The real TRL trainer, end to end, on a random two-layer policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError
from dopr.runlog import read_events
from dopr.selection import STRATEGIES, make_selector

pytest.importorskip("trl", reason="TRL is not installed")
import torch

import trl_kit
from trl_kit import trainer

pytestmark = pytest.mark.trl


def recorded(t: Any) -> list[tuple[str, int]]:
    """Make the trainer's selector write down the order of its asks and tells."""
    order: list[tuple[str, int]] = []
    ask, tell = t.selector.ask, t.selector.tell

    def noting_ask(**kwargs: Any) -> Any:
        order.append(("ask", t.selector.round))
        return ask(**kwargs)

    def noting_tell(*args: Any) -> Any:
        order.append(("tell", t.selector.round))
        return tell(*args)

    t.selector.ask, t.selector.tell = noting_ask, noting_tell
    return order


@pytest.mark.parametrize(
    ("accumulate", "per_device", "per_generation", "iterations", "workers"),
    [
        (1, 4, None, 1, 0),
        (4, 1, None, 1, 0),
        (2, 2, 4, 1, 2),
        (2, 2, None, 2, 0),
        (4, 1, 8, 2, 0),
        (4, 2, 2, 1, 2),
        (4, 4, 2, 3, 0),
    ],
)
def test_every_choice_sees_the_rewards_of_all_earlier_rounds(
    tmp_path: Any, accumulate: int, per_device: int, per_generation: int | None, iterations: int, workers: int
) -> None:
    t = trainer(
        tmp_path, gradient_accumulation_steps=accumulate, per_device_train_batch_size=per_device,
        steps_per_generation=per_generation, num_iterations=iterations, dataloader_num_workers=workers, max_steps=5,
        dopr_candidates=4,  # ten rounds an epoch: no partial accumulation at its end
    )  # fmt: skip
    order = recorded(t)
    t.train()
    k = t.args.prompts_per_round
    window = t.args.steps_per_generation * iterations
    rounds = -(-5 * accumulate // window)
    expected = [(verb, r + (verb == "tell")) for r in range(rounds) for verb in ("ask", *["tell"] * k)]
    assert order == expected
    assert t.selector.round == rounds
    assert t.spent.updates == 5
    assert t.spent.prompts == rounds * k


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_runs_through_the_same_trainer(tmp_path: Any, strategy: str) -> None:
    data = trl_kit.pool()
    data = data.add_column("category", [f"c{i % 3}" for i in range(len(data))])
    data = data.add_column("level", [f"Level {i % 5}" for i in range(len(data))])
    t = trainer(tmp_path, data=data, dopr_strategy=strategy, per_device_train_batch_size=8)
    before = [p.clone() for p in t.model.parameters()]
    t.train()
    events = [e for e in read_events(tmp_path / "out") if e["kind"] == "round"]
    assert [e["round"] for e in events] == [1, 2, 3, 4, 5, 6]
    for event in events:
        picks = event["picks"]
        assert len({p["id"] for p in picks}) == len(picks) >= 2
        kept = [p for p in picks if p["action"] == "keep"]
        assert len(kept) <= 2
        assert len(picks) == 2 or t.selector.max_refills
        assert all(len(p["rewards"]) == p["rollouts"] >= 2 for p in picks)
        assert all(p["disagreement"] is None or 0 <= p["disagreement"] <= 1 for p in picks)
    assert events[-1]["spent"]["rollouts"] == t.spent.rollouts == sum(p["rollouts"] for e in events for p in e["picks"])
    assert t.spent.tokens == sum(p["tokens"] for e in events for p in e["picks"]) > 0
    assert any((a != b).any() for a, b in zip(before, t.model.parameters(), strict=True))


def test_uniform_deals_every_prompt_once_per_epoch(tmp_path: Any) -> None:
    t = trainer(tmp_path, dopr_strategy="uniform", per_device_train_batch_size=16, max_steps=-1, num_train_epochs=2)
    t.train()
    picked = [p["id"] for e in read_events(tmp_path / "out") if e["kind"] == "round" for p in e["picks"]]
    assert len(picked) == 80
    assert len(set(picked[:40])) == len(set(picked[40:])) == 40


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "grpo"}, {"loss_type": "dr_grpo"}, {"loss_type": "bnpo"}, {"loss_type": "cispo", "epsilon_high": 5.0},
        {"beta": 0.05}, {"epsilon_high": 0.28}, {"scale_rewards": "none"}, {"scale_rewards": "batch"},
        {"num_iterations": 2, "beta": 0.05}, {"mask_truncated_completions": True}, {"top_entropy_quantile": 0.5},
        {"importance_sampling_level": "sequence", "loss_type": "grpo"}, {"multi_objective_aggregation": "normalize_then_sum"},
    ],
    ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()),
)  # fmt: skip
def test_trl_options_keep_working_with_sequential_rollouts_and_replay(tmp_path: Any, settings: dict[str, Any]) -> None:
    t = trainer(tmp_path, **settings)
    t.train()
    losses = [h["loss"] for h in t.state.log_history if "loss" in h]
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    events = read_events(tmp_path / "out")
    # A random policy never ends its completions, so masking the truncated ones leaves nothing worth replaying.
    assert (events[-1]["replayed"] > 0) != settings.get("mask_truncated_completions", False)


def test_lora_reward_lists_async_rewards_eval_and_callbacks(tmp_path: Any) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    from transformers import TrainerCallback

    async def short(completions: list[str], **_: Any) -> list[float]:
        return [float(len(c) < 4) for c in completions]

    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.steps += 1

    count = Count()
    t = trainer(
        tmp_path,
        reward=[trl_kit.even_first_byte, short],
        reward_weights=[1.0, 0.5],
        eval_strategy="steps",
        eval_steps=3,
        per_device_eval_batch_size=4,
        extra={
            "peft_config": peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
            "eval_dataset": trl_kit.pool(4),
            "callbacks": [count],
        },
        beta=0.01,
    )
    t.train()
    assert count.steps == 6
    assert t.selector.scale.high == 1.5
    assert any("eval_reward" in h for h in t.state.log_history)
    assert t.selector.round == 6  # evaluation generations are not rounds
    log = next(h for h in t.state.log_history if "dopr/coverage" in h)
    assert {"rewards/even_first_byte/mean", "rewards/short/mean", "dopr/informative"} <= set(log)


def test_a_sequential_group_goes_on_until_it_is_mixed(tmp_path: Any) -> None:
    calls: list[int] = []

    def third_call_only(completions: list[str], **_: Any) -> list[float]:
        calls.append(len(completions))
        return [float(len(calls) % 3 == 0 and i == 0) for i in range(len(completions))]

    t = trainer(tmp_path, reward=third_call_only, max_steps=2, dopr_wrong_cap=16, dopr_options={"search": False})
    t.train()
    events = read_events(tmp_path / "out")
    assert [e["picks"][0]["rollouts"] for e in events] == [12, 12]
    assert [e["picks"][0]["outcome"] for e in events] == ["mixed", "mixed"]
    assert calls == [4] * 6


def test_caps_end_constant_groups(tmp_path: Any) -> None:
    caps = {"dopr_wrong_cap": 16, "dopr_right_cap": 8, "max_steps": 1, "dopr_options": {"search": False}}
    wrong = trainer(tmp_path / "w", reward=lambda completions, **_: [0.0] * len(completions), **caps)
    right = trainer(tmp_path / "r", reward=lambda completions, **_: [1.0] * len(completions), **caps)
    for t in (wrong, right):
        t.train()
    assert wrong.last_round["picks"][0]["rollouts"] == 16  # four groups of four
    assert right.last_round["picks"][0]["rollouts"] == 8
    assert wrong.last_round["picks"][0]["outcome"] == "all_wrong"
    assert right.last_round["picks"][0]["outcome"] == "all_right"


def test_by_default_two_rollouts_come_first_and_a_first_search_ends_at_three_times_the_group_size(
    tmp_path: Any,
) -> None:
    """Completions of one token: longer ones hardly repeat, and there is no search then."""
    rounds: dict[float, int] = {}
    for value in (0.0, 1.0):
        t = trainer(tmp_path / f"{value}", reward=lambda completions, v=value, **_: [v] * len(completions),
                    max_steps=1, dopr_chunk=None, max_completion_length=1)  # fmt: skip
        t.train()
        rounds[value] = t.last_round["picks"][0]["rollouts"]
    assert rounds == {0.0: 12, 1.0: 2}
    calls: list[int] = []

    def third_is_right(completions: list[str], **_: Any) -> list[float]:
        calls.append(len(completions))
        return [float(len(calls) == 2 and i == 0) for i in range(len(completions))]

    t = trainer(tmp_path / "third", reward=third_is_right, max_steps=1, num_generations=8, per_device_train_batch_size=8,
                dopr_chunk=2, max_completion_length=1)  # fmt: skip
    t.train()
    assert calls == [2, 1]  # what follows is a search, one at a time
    assert t.last_round["picks"][0]["outcome"] == "mixed"


def test_plain_groups_leave_trl_unchanged(tmp_path: Any) -> None:
    """With fixed groups and no replay, the update equals GRPOTrainer's on the same rollouts."""
    t = trainer(tmp_path, dopr_strategy="random-one", dopr_candidates=1, max_steps=1)
    captured: dict[str, Any] = {}
    compute = t._compute_loss

    def noting(model: Any, inputs: Any) -> Any:
        captured.update(inputs)
        return compute(model, inputs)

    t._compute_loss = noting
    t.train()
    rewards = torch.tensor([float(r) for r in t.last_round["picks"][0]["rewards"]])
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert torch.allclose(captured["advantages"].sort().values, expected.sort().values)
    assert len(captured["advantages"]) == 4


def test_replayed_rows_are_verified_successes_with_unit_advantage(tmp_path: Any) -> None:
    t = trainer(tmp_path, max_steps=4, dopr_replay=3, dopr_replay_weight=0.7)
    seen: list[Any] = []
    compute = t._compute_loss

    def noting(model: Any, inputs: Any) -> Any:
        seen.append({k: v.clone() for k, v in inputs.items()})
        return compute(model, inputs)

    t._compute_loss = noting
    t.train()
    inputs = seen[-1]
    rows = (inputs["dopr_group"] == -1).nonzero().flatten()
    assert len(rows) == 3
    assert torch.allclose(inputs["advantages"][rows], torch.tensor(0.7))
    for row in rows:
        text = t.processing_class.decode(inputs["completion_ids"][row][inputs["completion_mask"][row].bool()])
        assert trl_kit.even_first_byte([text]) == [1.0]
    assert inputs["num_items_in_batch"] == (inputs["completion_mask"] * inputs["tool_mask"]).sum()


def test_a_wide_group_is_thinned_to_the_rows_memory_was_sized_for(tmp_path: Any) -> None:
    def lone_success(completions: list[str], **_: Any) -> list[float]:
        lone_success.calls += 1
        return [float(lone_success.calls == 4 and i == 0) for i in range(len(completions))]

    lone_success.calls = 0
    options = {"search": False}
    t = trainer(tmp_path, reward=lone_success, max_steps=1, dopr_replay=0, dopr_wrong_cap=16, dopr_options=options)
    seen: list[Any] = []
    compute = t._compute_loss
    t._compute_loss = lambda model, inputs: (seen.append(dict(inputs)), compute(model, inputs))[1]
    t.train()
    advantages = seen[0]["advantages"]
    assert t.spent.rollouts == 16
    assert len(advantages) == 4
    assert (advantages > 0).sum() == 1  # the lone success stays
    assert advantages.mean().item() == pytest.approx(0.0, abs=1e-5)  # and the mean over rows is that of all sixteen


def test_entropy_reaches_the_history(tmp_path: Any) -> None:
    t = trainer(tmp_path, max_steps=3)
    t.train()
    picks = [e["picks"][0] for e in read_events(tmp_path / "out")]
    assert all(0 < p["entropy"] < np.log(258) + 1e-3 for p in picks)
    rows = [int(p["id"][1:]) for p in picks]
    assert np.isfinite(t.selector.estimators()["prompts"].entropy[rows]).all()


def test_unscorable_rollouts_are_not_zeros(tmp_path: Any) -> None:
    t = trainer(
        tmp_path, reward=lambda completions, **_: [None, 1.0] * (len(completions) // 2), max_steps=1, dopr_right_cap=4
    )
    t.train()
    pick = t.last_round["picks"][0]
    assert pick["rewards"] == [None, 1.0, None, 1.0]
    assert pick["success"] == 1.0
    nothing = trainer(tmp_path / "n", reward=lambda completions, **_: [None] * len(completions), max_steps=2)
    nothing.train()
    assert nothing.last_round["picks"][0]["outcome"] == "unscorable"
    assert nothing.selector.estimators()["pool"].visits[0] == 0


def test_constant_groups_warn_early_and_stop_when_asked(tmp_path: Any) -> None:
    t = trainer(
        tmp_path,
        reward=lambda completions, **_: [0.0] * len(completions),
        max_steps=50,
        dopr_warn_constant=3,
        dopr_stop_constant=8,
    )
    t.train()
    events = read_events(tmp_path / "out")
    warnings = [e for e in events if e["kind"] == "warning"]
    assert [w["round"] for w in warnings] == [3, 6, 8]
    assert warnings[0]["code"] == "all_wrong"
    assert "too hard" in warnings[0]["text"]
    assert t.state.global_step == 8
    assert t.stop_reason == warnings[-1]["text"]


def test_resume_continues_with_the_same_choices(tmp_path: Any) -> None:
    whole = trainer(tmp_path / "a", max_steps=8, save_strategy="steps", save_steps=4)
    whole.train()
    resumed = trainer(tmp_path / "b", max_steps=8, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "out" / "checkpoint-4"))
    tail = [(e["round"], e["picks"][0]["id"], e["picks"][0]["rewards"]) for e in read_events(tmp_path / "a/out")][4:]
    again = [(e["round"], e["picks"][0]["id"], e["picks"][0]["rewards"]) for e in read_events(tmp_path / "b/out")]
    assert again == tail
    assert resumed.spent.rollouts == whole.spent.rollouts
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_own_selector_and_features_are_used(tmp_path: Any) -> None:
    from dopr.selection import SelectorConfig

    ids = [f"p{i}" for i in range(40)]
    selector = make_selector("dopr", ids, SelectorConfig(group_size=4, candidates=20), {"clusters": 2})
    features = np.repeat([[0.0], [1.0]], 20, axis=0)
    t = trainer(tmp_path, max_steps=2, extra={"selector": selector, "features": features})
    t.train()
    assert t.selector is selector
    assert len(set(selector.labels[:20])) == len(set(selector.labels[20:])) == 1
    assert selector.labels[0] != selector.labels[20]


def test_features_come_from_the_policys_hidden_state(tmp_path: Any) -> None:
    data = trl_kit.Dataset.from_list(
        [{"prompt": ("aaaa" if i % 2 else "zzzz") + f"{i}:", "id": str(i)} for i in range(40)]
    )
    t = trainer(tmp_path, max_steps=1, data=data)
    t.train()
    assert t.selector.clustered
    assert 1 < len(set(t.selector.labels)) <= 5


def test_bad_arguments_say_what_to_do(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"candidate batch of 80 .* pool of 40"):
        trainer(tmp_path, dopr_candidates=80)
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        trainer(tmp_path, dopr_strategy="unifrom")
    with pytest.raises(ConfigError, match="occurs twice"):
        trainer(tmp_path, data=trl_kit.Dataset.from_list([{"prompt": "a", "id": "1"}, {"prompt": "b", "id": "1"}]))
    with pytest.raises(ConfigError, match="no option 'volatilty'"):
        trainer(tmp_path, dopr_options={"volatilty": "within"})
    with pytest.raises(ConfigError, match="dopr_memory is 4"):
        trainer(tmp_path, dopr_memory=4)
    with pytest.raises(ConfigError, match="streaming"):
        trainer(tmp_path, data=trl_kit.pool().to_iterable_dataset())


def test_the_dynamic_sampling_filter_refills_dropped_groups(tmp_path: Any) -> None:
    def every_third_prompt_is_mixed(completions: list[str], id: list[str], **_: Any) -> list[float]:
        return [float(int(name[1:]) % 3 == 0 and i % 2) for i, name in enumerate(id)]

    t = trainer(
        tmp_path, dopr_strategy="dapo", per_device_train_batch_size=8, max_steps=2, reward=every_third_prompt_is_mixed
    )
    t.train()
    for event in read_events(tmp_path / "out"):
        kept = [p for p in event["picks"] if p["action"] == "keep"]
        assert len(kept) == 2
        assert all(int(p["id"][1:]) % 3 == 0 for p in kept)
        assert len(event["picks"]) > 2 or all(p["outcome"] == "mixed" for p in event["picks"])
    assert t.spent.rollouts == 4 * t.spent.prompts > 16
    assert [e["round"] for e in read_events(tmp_path / "out")] == [1, 2]


def test_cut_off_completions_cost_tokens_although_they_are_masked(tmp_path: Any) -> None:
    """TRL zeroes their mask; a budget in tokens must end all the same."""
    t = trainer(tmp_path, max_steps=3, max_completion_length=4, mask_truncated_completions=True)
    t.train()
    events = [e for e in read_events(tmp_path / "out") if e["kind"] == "round"]
    lengths = [p["tokens"] for e in events for p in e["picks"]]
    assert t.spent.tokens == sum(lengths)
    assert (
        0.9 * 4 * t.spent.rollouts <= t.spent.tokens <= 4 * t.spent.rollouts
    )  # a random policy ends one in 258 tokens


def test_the_share_cut_off_is_that_of_the_whole_round(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    t = trainer(tmp_path, reward=lambda completions, **_: [0.0] * len(completions), max_steps=1, dopr_chunk=2, dopr_wrong_cap=6,
                dopr_options={"search": False})  # fmt: skip
    shares, seen = iter([1.0, 0.5, 0.0]), []
    monkeypatch.setattr(t, "captured_cut_off", lambda: next(shares))
    see = t.health.see_round
    monkeypatch.setattr(t.health, "see_round", lambda signs: seen.append(signs.truncated) or see(signs))
    t.train()
    assert seen == [0.5]


def test_a_selector_of_other_prompts_is_refused(tmp_path: Any) -> None:
    from dopr.selection import SelectorConfig

    config = SelectorConfig(group_size=4, candidates=20)
    ids = [f"p{i}" for i in range(40)]
    for wrong in (ids[::-1], ids[:39], range(39)):
        with pytest.raises(ConfigError, match=r"other prompts|of 39 prompts"):
            trainer(tmp_path, extra={"selector": make_selector("dopr", wrong, config)})
    two = SelectorConfig(group_size=4, candidates=20, prompts_per_round=2)
    with pytest.raises(ConfigError, match="chooses 2 of 40"):
        trainer(tmp_path, extra={"selector": make_selector("dopr", ids, two)})


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_features_of_a_policy_with_adapters_cost_no_logits_either() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    from dopr.train.features import hidden_features

    plain = trl_kit.random_policy()
    asked = []
    plain.register_forward_pre_hook(
        lambda module, args, kwargs: asked.append(kwargs.get("logits_to_keep")), with_kwargs=True
    )
    expected = hidden_features(plain, [[3, 4], [5]], 256, 0)
    adapted = peft.get_peft_model(plain, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]))
    np.testing.assert_allclose(hidden_features(adapted, [[3, 4], [5]], 256, 0), expected, atol=1e-6)
    assert asked == [1, 1]
