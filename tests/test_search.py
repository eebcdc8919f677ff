"""Search at another temperature where nothing has succeeded: the choice alone, and through the real trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError
from dopr.selection import Dopr, SelectorConfig, make_selector
from dopr.selection.search import Search
from dopr.simulate import TabularWorld, run_tabular
from dopr.train.state import load_state, save_state
from selection_kit import ids


def dopr(*, replay: int | None = None, clustered: bool = True, **options: Any) -> Dopr:
    selector = make_selector(
        "dopr", ids(24), SelectorConfig(replay=replay, chunk=2), {"clusters": 4, "survey": 0, **options}
    )
    assert isinstance(selector, Dopr)
    if clustered:
        selector.set_features(None, np.arange(24, dtype=np.int32) % 4)
    return selector


def heats(selector: Dopr, rewards: list[float], n: int = 60) -> set[float]:
    """Of prompt p0's further rollouts over many visits that teach the search nothing."""
    found = set()
    for _ in range(n):
        found.add(selector.review("p0", rewards).heat)
        selector.search.tell("p0", [])
    return found


def test_failing_groups_go_on_hotter_only_where_the_cluster_has_never_succeeded() -> None:
    selector = dopr(search=1.5)
    assert heats(selector, [0.0, 0.0]) == {1.0, 1.5}
    selector.tell("p8", [0.2, 0.1])  # of the same cluster; a share of the reward, for its form perhaps, is no success
    assert heats(selector, [0.0, 0.0]) == {1.0, 1.5}
    selector.tell("p4", [0.0, 1.0])
    assert heats(selector, [0.0, 0.0]) == {1.0}
    assert heats(selector, [0.0, 0.0], n=5) == {1.0}


@pytest.mark.parametrize("without", [{"search": 1.0}, {"replay": 0}, {"clustered": False}])
def test_the_search_can_be_switched_off(without: dict[str, Any]) -> None:
    assert heats(dopr(**without), [0.0, 0.0]) == {1.0}


def test_a_group_keeps_its_temperature_and_one_that_is_over_is_not_searched() -> None:
    selector = dopr()
    for _ in range(40):
        first = selector.review("p0", [0.0, 0.0]).heat
        assert selector.review("p0", [0.0] * 4).heat == selector.review("p0", [0.0] * 6).heat == first
        assert selector.review("p0", [0.0] * 8).action == "keep"
        selector.search.tell("p0", [])
    right = dopr(survey=0)
    right.rollouts = type(right.rollouts)(chunk=2, wrong_cap=8, right_cap=8)
    assert heats(right, [1.0, 1.0]) == {1.0}


def test_the_temperature_that_finds_successes_is_used_more() -> None:
    for finds, low, high in ((1.5, 0.7, 1.0), (1.0, 0.0, 0.3)):
        search, rng = Search(1.5), np.random.default_rng(0)
        for _ in range(300):
            heat = search.heat("p", rng)
            search.tell("p", [False] * 5 + [bool(heat == finds and rng.random() < 0.5)])
        assert low <= search.share <= high
    never, rng = Search(1.5), np.random.default_rng(1)
    for _ in range(300):
        never.heat("p", rng)
        never.tell("p", [False] * 6)
    assert 0.2 < never.share < 0.9  # nothing found at either: both go on being tried
    assert Search(2.0).share == 0


def test_what_the_search_learned_is_saved(tmp_path: Path) -> None:
    selector = dopr()
    for _ in range(10):
        (pick,) = selector.ask()
        selector.review(pick.prompt_id, [0.0, 0.0])
        selector.tell(pick.prompt_id, [0.0] * 8)
    save_state(tmp_path / "state.npz", selector.state_dict())
    twin = dopr()
    twin.load_state_dict(load_state(tmp_path / "state.npz"))
    np.testing.assert_array_equal(twin.search.counts, selector.search.counts)
    assert twin.search.counts.sum() == 37 + 60  # the prior, and six further rollouts in each of ten groups


def test_impossible_factors_are_refused() -> None:
    for value in (0.0, -1.0, float("inf"), 11.0):
        with pytest.raises(ConfigError, match="search is"):
            dopr(search=value)


def test_it_finds_rare_skills_sooner_in_the_tabular_world() -> None:
    def spent(search: float) -> list[int]:
        found = []
        for seed in range(6):
            world = TabularWorld(seed=seed)
            selector = make_selector(
                "dopr", range(world.prompts), SelectorConfig(seed=seed, chunk=2), {"search": search}
            )
            selector.set_features(np.eye(len(world.propensities))[world.skill])
            run = run_tabular(world, selector, learning_rate=0.1, target=0.8, budget=3000, seed=seed)
            found.append(run.rollouts_to_target or 3000)
        return found

    assert np.median(spent(1.5)) < np.median(spent(1.0))


# -- through the trainer -------------------------------------------------------------------------------------------


@pytest.mark.trl
def test_the_trainer_searches_at_the_other_temperature_and_learns_from_its_success_alone(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    import torch

    from dopr.runlog import read_events
    from trl_kit import trainer

    temperatures: list[float] = []

    def right_when_hot(completions: list[str], **_: Any) -> list[float]:
        """A search's second chunk has one success, everything else fails."""
        hot = temperatures[-1] != 1.0 and temperatures[-2] != 1.0
        return [float(hot and i == 0) for i in range(len(completions))]

    options = {"search": 3.0, "clusters": 5, "survey": 0}
    t = trainer(tmp_path, reward=right_when_hot, dopr_options=options, dopr_chunk=2, dopr_wrong_cap=8, num_generations=8,
                per_device_train_batch_size=8, max_steps=12)  # fmt: skip
    batches: list[torch.Tensor] = []
    generate, loss = t.model.generate, t._compute_loss

    def recorded(*args: Any, **kwargs: Any) -> Any:
        temperatures.append(kwargs["generation_config"].temperature)
        return generate(*args, **kwargs)

    def seen(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        on_policy = inputs["dopr_group"] >= 0
        batches.append(inputs["advantages"][on_policy].detach().clone())
        return loss(model, inputs)

    t.model.generate, t._compute_loss = recorded, seen  # type: ignore[method-assign]
    t.train()
    rounds = [e for e in read_events(tmp_path / "out") if e["kind"] == "round"]
    assert set(temperatures) == {1.0, 3.0}
    assert t.generation_config.temperature == t.temperature == 1.0
    found = [i for i, e in enumerate(rounds) if sum(e["picks"][0]["rewards"])]
    assert found
    for i, advantages in enumerate(batches):
        rewards = rounds[i]["picks"][0]["rewards"]
        assert sorted(advantages[advantages != 0].tolist()) == [1.0] * int(sum(rewards))
    learned = {rounds[i]["picks"][0]["cluster"] for i in found}
    assert len(learned) == len(found)  # after its success a cluster is not searched again, so it has no second one here
    assert t.selector.search.counts[1, 0] == 4 + len(found)
