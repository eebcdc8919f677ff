"""``features: category``: a strategy that shares evidence is told the problems' own categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli_kit import dopr, events, sums, write_jsonl
from dopr.config import TrainSettings
from dopr.errors import ConfigError
from dopr.selection.clusters import cluster_features
from dopr.tasks.worlds import world_info
from dopr.train.metadata import category_features
from dopr.train.prepare import prepare


@pytest.mark.parametrize("count", [1, 2, 17, 64, 200])
def test_clusters_of_category_features_never_mix_categories_up_to_as_many_as_there_are_clusters(count: int) -> None:
    categories = [f"c{i % count}" for i in range(1000)]
    labels = cluster_features(category_features(categories), k=64, seed=0)
    found = {}
    for category, label in zip(categories, labels, strict=True):
        assert found.setdefault(category, label) == label  # one category is never split
    if count <= 64:
        assert len(set(found.values())) == count


def test_category_features_are_finite_and_at_most_64_wide() -> None:
    assert category_features([3, "a", 3]).tolist() == [[1, 0], [0, 1], [1, 0]]
    wide = category_features(list(range(1000)))
    assert wide.shape == (1000, 64)
    assert np.isfinite(wide).all()


def test_features_that_cannot_be_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features is 'categry'. Did you mean 'category'\?"):
        TrainSettings(features="categry")
    write_jsonl(tmp_path / "sums.jsonl", sums(20))
    with pytest.raises(ConfigError, match=r"not every problem of .* has one"):
        prepare(TrainSettings(data=str(tmp_path / "sums.jsonl"), features="category"))


@pytest.mark.slow
@pytest.mark.trl
def test_a_run_by_category_has_one_cluster_per_category_and_a_run_without_features_one(tmp_path: Path) -> None:
    skills = {skill.name for skill in world_info("mostly-mastered").skills}
    for features in ("category", "none"):
        dopr(
            tmp_path, "train", "--data", "world:mostly-mastered", "--features", features, "--budget", "rollouts=80",
            "--eval-problems", "0", "--output", features,
        )  # fmt: skip
        picks = [p for e in events(tmp_path / features, "round") for p in e["picks"]]
        clusters = {(p["skill"], p["cluster"]) for p in picks}
        if features == "none":
            assert {cluster for _, cluster in clusters} == {0}
        else:
            assert {skill for skill, _ in clusters} == skills
            assert len({cluster for _, cluster in clusters}) == len(clusters) == len(skills)
