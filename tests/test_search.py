"""The search for first successes, without replacement: the verdict, the tree of what was tried, and the real trainer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError
from dopr.selection import Dopr, SelectorConfig, make_selector
from dopr.selection.rollouts import Review
from dopr.simulate import TabularWorld, run_tabular
from dopr.train.state import load_state, save_state
from selection_kit import ids


def dopr(*, replay: int | None = None, clustered: bool = True, **options: Any) -> Dopr:
    selector = make_selector("dopr", ids(24), SelectorConfig(replay=replay, chunk=2), {"clusters": 4, **options})
    assert isinstance(selector, Dopr)
    if clustered:
        selector.set_features(None, np.arange(24, dtype=np.int32) % 4)
    return selector


def test_failing_groups_search_where_the_cluster_has_never_succeeded() -> None:
    selector = dopr()
    assert selector.review("p0", [0.0, 0.0]).search
    assert selector.review("p0", [0.0, None, 0.0, 0.0]).search
    selector.tell("p8", [0.2, 0.1])  # of the same cluster; a share of the reward, for its form perhaps, is no success
    assert selector.review("p0", [0.0, 0.0]).search
    selector.tell("p4", [0.0, 1.0])
    for prompt, searches in (("p0", False), ("p1", True)):  # the cluster with a success, and another
        verdict = selector.review(prompt, [0.0, 0.0])
        assert (verdict.action, verdict.rollouts, verdict.search) == ("more", 1 if searches else 2, searches)


def test_the_search_can_be_switched_off() -> None:
    verdict = dopr(search=False).review("p0", [0.0, 0.0])
    assert (verdict.action, verdict.rollouts, verdict.search) == ("more", 2, False)


def test_without_clusters_the_pools_first_success_ends_the_search_for_now() -> None:
    selector = dopr(clustered=False)
    assert selector.review("p0", [0.0, 0.0]).search
    selector.tell("p1", [0.0, 1.0])
    assert not selector.review("p0", [0.0, 0.0]).search


def told(solved: set[str], rounds: int = 60) -> Dopr:
    """After groups of eight on prompts of one cluster, of which ``solved`` succeed every second time, others never."""
    selector = dopr()
    for round_ in range(rounds):
        (pick,) = selector.ask()
        prompt = f"p{4 * (round_ % 5)}"  # p20 is never told of
        selector.tell(prompt, [float(i % 2 and prompt in solved) for i in range(8)])
        assert pick.rollouts == 2
    return selector


def test_where_prompts_of_a_cluster_differ_those_that_fail_are_searched_although_others_succeed() -> None:
    selector = told({"p0", "p4"})
    assert [selector.review(f"p{i}", [0.0, 0.0]).search for i in (0, 4, 8, 12, 16)] == [False, False, True, True, True]
    # A prompt not seen yet may be of either kind, until it has failed often enough.
    assert not selector.review("p20", [0.0]).search
    assert selector.review("p20", [0.0] * 6).search


def test_where_prompts_of_a_cluster_are_alike_some_failures_do_not_start_a_search() -> None:
    selector = told({"p0", "p4", "p8", "p12", "p16"})
    assert not any(selector.review(f"p{i}", [0.0] * 6).search for i in (0, 8, 20))


def test_a_group_that_is_over_or_right_is_not_searched() -> None:
    selector = dopr()
    assert selector.review("p0", [0.0] * 23) == Review("more", 1, search=True)
    assert selector.review("p0", [0.0] * 24) == selector.review("p0", [0.0, 1.0]) == Review("keep")
    assert dopr(search_depth=1).review("p0", [0.0] * 7) == Review("more", 1, search=True)
    assert dopr(search_depth=1).review("p0", [0.0] * 8) == Review("keep")
    selector.tell("p0", [0.0, 1.0])
    assert selector.review("p0", [0.0] * 8) == Review("keep")  # its cluster has succeeded: a plain group
    selector.rollouts = type(selector.rollouts)(chunk=2, wrong_cap=8, right_cap=8)
    right = selector.review("p0", [1.0, 1.0])
    assert (right.action, right.search) == ("more", False)


def deepest(selector: Dopr, prompt: str) -> int:
    """Rollouts after which a search is given up."""
    return next(n for n in range(2, 99) if selector.review(prompt, [0.0] * n) == Review("keep"))


def after_groups(**found_at: int) -> Dopr:
    """Told of forty groups of clusters p0 to p3, all searched, with a success at that rollout or none in 24."""
    selector = dopr()
    for i in range(40):
        n = found_at.get(f"p{i % 4}", 0)
        selector.tell(f"p{i % 4}", [0.0] * (n - 1) + [1.0] if n else [0.0] * 24)
        selector._unlocked[:] = False  # else searches are for prompts that are not expected to succeed
    return selector


def test_searches_are_as_deep_as_draws_have_paid() -> None:
    assert deepest(dopr(), "p0") == 24  # nothing is known
    assert [deepest(after_groups(), f"p{i}") for i in range(4)] == [8] * 4
    # Nine to sixteen failures are put up with for successes that come after them, with what lies beyond those left out.
    assert [deepest(after_groups(p1=9, p2=9, p3=9), f"p{i}") for i in range(4)] == [8, 16, 16, 16]
    assert [deepest(after_groups(p1=20, p2=20, p3=20), f"p{i}") for i in range(4)] == [8, 24, 24, 24]


def test_draws_that_pay_less_than_those_of_other_prompts_are_left_out() -> None:
    def told(at_once: int) -> Dopr:
        """One group in four finds something at its sixth draw, the others nothing in sixteen; so many others at their first."""
        selector = dopr()
        for i in range(24):
            selector.tell("p0", [0.0] * 5 + [1.0] if i % 4 == 0 else [0.0] * 16)
            for _ in range(at_once):
                selector.tell("p1", [1.0, 0.0])
                selector._unlocked[:] = False
        return selector

    assert deepest(told(0), "p0") == 24
    assert deepest(told(4), "p0") == 8


def test_a_search_in_vain_makes_the_next_one_shorter_where_it_was() -> None:
    selector = dopr()
    selector.tell("p0", [0.0] * 24)
    assert [deepest(selector, f"p{i}") for i in range(4)] == [8, 24, 24, 24]


def test_plain_groups_are_not_searched() -> None:
    plain = make_selector("dopr", [f"p{i}" for i in range(8)], SelectorConfig(chunk=8, wrong_cap=8, right_cap=8), {})
    for n in (8, 16):
        assert plain.review("p0", [0.0] * n) == Review("keep")
    assert plain.review("p0", [0.0, 1.0] * 4) == plain.review("p0", [1.0] * 8) == Review("keep")


def test_which_clusters_have_succeeded_is_saved(tmp_path: Path) -> None:
    selector, twin = dopr(), dopr()
    selector.tell("p0", [0.0, 1.0])
    save_state(tmp_path / "state.npz", selector.state_dict())
    twin.load_state_dict(load_state(tmp_path / "state.npz"))
    assert [twin.review(f"p{i}", [0.0, 0.0]).search for i in range(4)] == [False, True, True, True]


def test_the_switch_takes_yes_and_no_only() -> None:
    with pytest.raises(ConfigError, match="search"):
        dopr(search=1.5)


@pytest.mark.parametrize("depth", [0, -1, 1.5, True])
def test_the_depth_is_a_whole_number(depth: Any) -> None:
    with pytest.raises(ConfigError, match=r"search_depth.* is .*; it must be"):
        dopr(search_depth=depth)


@pytest.mark.parametrize("clustered", [True, False])
def test_it_finds_rare_skills_sooner_in_the_tabular_world(clustered: bool) -> None:
    def spent(search: bool) -> list[int]:
        found = []
        for seed in range(6):
            world = TabularWorld(seed=seed)
            options = {"search": search} | ({} if clustered else {"clusters": 1})
            selector = make_selector("dopr", range(world.prompts), SelectorConfig(seed=seed, chunk=2), options)
            selector.set_features(np.eye(len(world.propensities))[world.skill])
            run = run_tabular(world, selector, learning_rate=0.1, target=0.8, budget=3000, seed=seed)
            found.append(run.rollouts_to_target or 3000)
        return found

    # In a single cluster every skill but the first is found by the posteriors' search.
    assert np.median(spent(True)) < np.median(spent(False)) / (1 if clustered else 3)


# -- what was tried ------------------------------------------------------------------------------------------------

END, LENGTH, TEMPERATURE = 3, 3, 0.7


def completions() -> list[tuple[int, ...]]:
    """All of up to three tokens from four, the last of which ends them."""
    free = [tokens for n in range(LENGTH + 1) for tokens in itertools.product(range(END), repeat=n)]
    return [tokens if len(tokens) == LENGTH else (*tokens, END) for tokens in free]


def table(seed: int) -> dict[tuple[int, ...], np.ndarray[Any, np.dtype[np.float64]]]:
    """Logits of the next token after every beginning; some beginnings are nearly sure of it."""
    rng = np.random.default_rng(seed)
    free = [tokens for n in range(LENGTH) for tokens in itertools.product(range(END), repeat=n)]
    return {tokens: rng.normal(size=END + 1) * rng.choice([1, 6]) for tokens in free}


def log_softmax(x: Any) -> Any:
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


@pytest.mark.trl
@pytest.mark.parametrize("seed", range(4))
def test_completions_are_drawn_as_if_the_failed_ones_did_not_exist(seed: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.train.untried import WithoutReplacement, tree_of

    logits = {at: x.astype(np.float32).astype(np.float64) for at, x in table(seed).items()}

    def steps(tokens: tuple[int, ...]) -> list[float]:
        return [float(log_softmax(logits[tokens[:i]] / TEMPERATURE)[token]) for i, token in enumerate(tokens)]

    every = completions()
    chance = {tokens: math.exp(sum(steps(tokens))) for tokens in every}
    assert sum(chance.values()) == pytest.approx(1)
    failed = [*sorted(every, key=lambda c: -chance[c])[:3], *np.random.default_rng(seed).permutation(len(every))[:4]]
    failed = [c if isinstance(c, tuple) else every[c] for c in failed]
    tree = tree_of(failed, [steps(c) for c in failed])
    mass = sum(chance[c] for c in set(failed))
    assert tree.tried == pytest.approx(mass, abs=1e-6)

    other = [every[0]]  # the second row has another prompt, with failures of its own; the third has none
    trees = [tree, tree_of(other, [steps(c) for c in other]), None]
    prompt = torch.zeros((3, 2), dtype=torch.long)
    for tokens in every:
        process = WithoutReplacement(trees, TEMPERATURE)
        drawn = np.zeros(3)
        for i, token in enumerate(tokens):
            so_far = torch.tensor([tokens[:i]] * 3, dtype=torch.long).reshape(3, i)
            scores = torch.tensor(np.stack([logits[tokens[:i]]] * 3), dtype=torch.float32)
            kept = scores.clone()
            now = process(torch.cat([prompt, so_far], dim=1), scores)
            assert torch.equal(scores, kept)  # the model's own logits are not touched
            drawn += [log_softmax(row / TEMPERATURE)[token] for row in now.double().numpy()]
        left = [0.0 if tokens in failed else chance[tokens] / (1 - mass), 0.0, chance[tokens]]
        left[1] = 0.0 if tokens in other else chance[tokens] / (1 - chance[other[0]])
        np.testing.assert_allclose(np.exp(drawn), left, rtol=2e-3, atol=1e-4)


# -- through the trainer -------------------------------------------------------------------------------------------


Tokens = tuple[int, ...]


def searching(tmp_path: Path, reward: Callable[[int], float], **settings: Any) -> tuple[Any, list[list[list[Tokens]]]]:
    """A trainer with chunks of two, and the completions by group and chunk; ``reward`` is told the chunk's number."""
    from trl_kit import trainer

    groups: list[list[list[Tokens]]] = []

    def scored(completion_ids: list[list[int]], **_: Any) -> list[float]:
        groups[-1].append([tuple(tokens) for tokens in completion_ids])
        return [reward(len(groups[-1])), *[0.0] * (len(completion_ids) - 1)]

    options = {"clusters": 5, **settings.pop("dopr_options", {})}
    settings = {
        "dopr_wrong_cap": 8,
        "temperature": 0.02,
        **settings,
    }  # so sure of itself that it repeats what has failed
    t = trainer(tmp_path, reward=scored, dopr_options=options, dopr_chunk=2, num_generations=8, per_device_train_batch_size=8,
                **settings)  # fmt: skip
    ask = t.selector.ask

    def asked(*args: Any, **kwargs: Any) -> Any:
        groups.append([])
        return ask(*args, **kwargs)

    t.selector.ask = asked  # type: ignore[method-assign]
    return t, groups


@pytest.mark.trl
@pytest.mark.parametrize("search", [True, False])
def test_the_trainer_draws_no_failed_completion_again(tmp_path: Path, search: bool) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")

    t, groups = searching(
        tmp_path, lambda _: 0.0, dopr_options={"search": search, "search_depth": 1}, dopr_wrong_cap=24, max_steps=8,
        temperature=0.02, max_completion_length=2,
    )  # fmt: skip
    t.train()
    lengths = [sum(map(len, group)) for group in groups]
    assert lengths[:3] == [24] * 3  # three clusters
    assert all(12 <= n <= 24 if search else n == 24 for n in lengths)  # searches in vain make later ones shorter
    each = 1 if search else 2
    assert [[len(chunk) for chunk in group] for group in groups] == [[2, *[each] * ((n - 2) // each)] for n in lengths]
    assert len(groups) == 8
    repeats = sum(
        len(set(chain.from_iterable(group[:i])) & set(group[i])) for group in groups for i in range(len(group))
    )
    assert repeats == 0 if search else repeats > 12  # a policy this sure of itself does little else
    assert "generate" not in vars(t.model)


@pytest.mark.trl
def test_engines_that_cannot_leave_out_what_failed_go_on_with_plain_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.runlog import read_events
    from dopr.train import untried

    t, groups = searching(tmp_path, lambda _: 0.0, max_steps=2)
    assert untried.can_leave_out(t, [300, 3])
    for engine in ("use_vllm", "use_transformers_continuous_batching"):
        with monkeypatch.context() as patch:
            patch.setattr(t, engine, True)
            assert not untried.can_leave_out(t, [3])
    monkeypatch.setattr("dopr.train.round.can_leave_out", lambda *_: False)  # vLLM itself needs a GPU
    t.train()
    assert [[len(chunk) for chunk in group] for group in groups] == [[2, 2, 2, 2]] * 2
    assert [e["picks"][0]["searched"] for e in read_events(tmp_path / "out") if e["kind"] == "round"] == [0, 0]


@pytest.mark.trl
def test_where_all_failures_are_too_long_to_be_left_out_a_group_goes_on_as_without_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.train import untried

    t, groups = searching(tmp_path, lambda _: 0.0, max_steps=2, max_completion_length=2)
    monkeypatch.setattr(untried, "LONGEST", 1)
    assert untried.can_leave_out(t, [2, 1])
    assert not untried.can_leave_out(t, [2, 2, 0])  # 0: truncated and masked out
    monkeypatch.setattr(untried, "LONGEST", 0)
    t.train()
    assert [[len(chunk) for chunk in group] for group in groups] == [[2, 2, 2, 2]] * 2


@pytest.mark.trl
@pytest.mark.parametrize(("temperature", "length", "search"), [(8.0, 6, False), (8.0, 1, True), (0.02, 6, True)])
def test_where_the_policy_hardly_repeats_a_failure_a_group_goes_on_as_without_a_search(
    tmp_path: Path, temperature: float, length: int, search: bool
) -> None:
    """As long answers do: six tokens at a temperature of 8 are one of millions."""
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.runlog import read_events

    t, groups = searching(
        tmp_path, lambda _: 0.0, max_steps=3, temperature=temperature, max_completion_length=length,
        dopr_options={"search_depth": 1},
    )  # fmt: skip
    t.train()
    assert [[len(chunk) for chunk in group] for group in groups] == [[2, *([1] * 6 if search else [2] * 3)]] * 3
    searched = [e["picks"][0]["searched"] for e in read_events(tmp_path / "out") if e["kind"] == "round"]
    assert searched == [6 if search else 0] * 3


@pytest.mark.trl
def test_a_generate_that_somebody_else_has_put_on_the_model_is_used_and_given_back(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")

    t, _ = searching(tmp_path, lambda _: 0.0, dopr_options={"search_depth": 1}, dopr_wrong_cap=24, max_steps=1)
    calls: list[bool] = []
    generate = t.model.generate

    def own(*args: Any, **kwargs: Any) -> Any:
        calls.append("logits_processor" in kwargs)
        return generate(*args, **kwargs)

    t.model.generate = own
    t.train()
    assert calls == [False] + [True] * 22
    assert vars(t.model)["generate"] is own


@pytest.mark.trl
def test_the_tree_holds_the_policys_own_probabilities(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.train.untried import Trees
    from trl_kit import trainer

    t = trainer(tmp_path, temperature=0.3)
    tokenize = t.processing_class
    prompt, failed = tuple(tokenize("q1: ")["input_ids"]), [tuple(tokenize(text)["input_ids"]) for text in ("ab", "ac")]
    trees = Trees(t)
    asked: list[int] = []
    hook = t.model.register_forward_pre_hook(
        lambda model, args, kwargs: asked.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    assert set(trees.of({0: prompt}, {0: failed[:1], 1: []})) == {0}
    tree = trees.of({0: prompt}, {0: [*failed, failed[0]], 1: []})
    assert asked == [1, 1]  # what the policy says of a completion is asked once
    hook.remove()
    assert set(tree) == {0}
    with torch.no_grad():
        logits = t.model(torch.tensor([[*prompt, *failed[0]]])).logits[0] / 0.3
    first, second = logits[len(prompt) - 1 : len(prompt) + 1].softmax(-1)
    a, (b, c) = failed[0][0], (tokens[1] for tokens in failed)
    assert tree[0].tried == pytest.approx(float(first[a] * (second[b] + second[c])), rel=1e-4)
    assert tree[0].children[a].children[b].tried == 1


@pytest.mark.trl
def test_a_group_with_a_search_is_learned_from_as_one_group(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.runlog import read_events

    t, _ = searching(tmp_path, lambda chunk: float(chunk == 3), max_steps=12)
    batches: list[Any] = []
    loss = t._compute_loss

    def seen(model: Any, inputs: dict[str, Any]) -> Any:
        on_policy = inputs["dopr_group"] >= 0
        batches.append(inputs["advantages"][on_policy].detach().clone())
        return loss(model, inputs)

    t._compute_loss = seen
    t.train()
    rounds = [e for e in read_events(tmp_path / "out") if e["kind"] == "round"]
    picks = [e["picks"][0] for e in rounds]
    searched = [pick for pick in picks if pick["searched"]]
    # After two failures, or, on a cluster that has succeeded with one rollout in four or so, after two or four.
    assert {(tuple(pick["rewards"]), pick["searched"]) for pick in searched} == {
        ((0.0, 0.0, 0.0, 1.0), 2),
        ((0.0, 0.0, 0.0, 0.0, 1.0), 1),
    }
    first = [next(pick for pick in picks if pick["cluster"] == cluster) for cluster in range(5)]
    assert all(pick["searched"] == 2 for pick in first)
    for pick, advantages in zip(picks, batches, strict=True):
        if pick["searched"]:
            # (reward - 1/4) / (1/2), and (reward - 1/5) / sqrt(1/5)
            expected = {2: [-0.5, -0.5, -0.5, 1.5], 1: [*[-0.4472] * 4, 1.7889]}[pick["searched"]]
            assert sorted(advantages.tolist()) == pytest.approx(expected, abs=1e-3)
