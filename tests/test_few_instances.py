"""What benchmarks/few_instances.py rests on: subsets are nested, and are judged on the whole world."""

from __future__ import annotations

import pytest

from dopr.config import TrainSettings
from dopr.tasks.worlds import WORLD_NAMES, world_info
from dopr.train.prepare import prepare


@pytest.mark.parametrize("world", WORLD_NAMES)
def test_subsets_are_nested_and_held_out_problems_stay_those_of_the_whole_world(world: str) -> None:
    jobs = {n: prepare(TrainSettings(data=f"world:{world}", size=n, seed=3)) for n in (1, 2, 16, 64)}
    ids = {n: [p.id for p in job.problems] for n, job in jobs.items()}
    for small, large in ((1, 2), (2, 16), (16, 64)):
        assert len(ids[small]) == small
        assert ids[small] == ids[large][:small]
    held = {n: [p.id for p in job.held_out] for n, job in jobs.items()}
    assert held[1] == held[64]
    assert len(held[1]) == 256
    assert {p.extra["skill"] for p in jobs[1].held_out} == {skill.name for skill in world_info(world).skills}
    assert not set(held[1]) & set(ids[64])


def test_a_block_of_the_stream_holds_every_skill() -> None:
    """Why T4's count for independent draws is not needed here."""
    for world in WORLD_NAMES:
        block = world_info(world).block
        job = prepare(TrainSettings(data=f"world:{world}", size=block, seed=1))
        assert {p.extra["skill"] for p in job.problems} == {skill.name for skill in world_info(world).skills}
