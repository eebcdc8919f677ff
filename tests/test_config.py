"""Settings: files, flags, types, and that what is shipped parses."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from dopr.budget import Budget, Spent, Stopwatch
from dopr.config import EvalSettings, TrainSettings
from dopr.config_layers import as_dict, build, parse_pair, read_config_file
from dopr.errors import ConfigError


def test_later_layers_win_and_dashes_are_underscores() -> None:
    s = build(TrainSettings, {"learning_rate": 1e-5, "seed": 3}, {"learning-rate": "2e-5"})
    assert (s.learning_rate, s.seed) == (2e-5, 3)


def test_settings_survive_a_round_trip_through_plain_values() -> None:
    s = build(TrainSettings, {"reward": "number", "option": {"ucb": 0.1}, "trainer": {"beta": 0.01}, "chat": False})
    assert build(TrainSettings, as_dict(s)) == s
    assert s.reward == ("number",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "three"),
        ("seed", True),
        ("seed", 1.5),
        ("chat", "yes"),
        ("option", ["a"]),
        ("learning_rate", [1]),
        ("model", None),
    ],
)
def test_values_of_the_wrong_type_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        build(TrainSettings, {key: value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reward_weight": [0.0]}, "no reward would count"),
        ({"reward_weight": [-1.0]}, "no reward would count"),
        ({"reward_weight": [float("nan")]}, "each must be a finite number"),
        ({"success": float("nan")}, "success is nan"),
        ({"top_p": 5.0}, "top_p is 5"),
        ({"top_k": -1}, "top_k is -1; it must be at least 1, or 0"),
        ({"eval_samples": 0}, "eval_samples is 0"),
        ({"eval_temperature": -1.0}, "eval_temperature is -1"),
    ],
)
def test_values_out_of_range_are_named_by_their_setting(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(TrainSettings, settings)


def test_a_penalty_alone_may_count_where_success_is_set() -> None:
    assert build(TrainSettings, {"reward_weight": [-1.0], "success": 0.0}).reward_weight == (-1.0,)


def test_of_switches_a_later_layer_replaces_those_it_names() -> None:
    file = {"option": {"search": False, "volatility": "within"}, "trainer": {"beta": 0.04, "max_grad_norm": 0.5}}
    s = build(TrainSettings, file, {"option": {"random": True}, "trainer": {"max_grad_norm": 0.2}})
    assert s.option == {"search": False, "volatility": "within", "random": True}
    assert s.trainer == {"beta": 0.04, "max_grad_norm": 0.2}
    assert file["option"] == {"search": False, "volatility": "within"}


def test_dates_stay_text(tmp_path: Path) -> None:
    assert parse_pair("date=2024-07-26") == ("date", "2024-07-26")
    (tmp_path / "c.yaml").write_text("chat_option: {date: 2024-07-26, days: [2024-07-27]}\n")
    (tmp_path / "c.toml").write_text("[chat_option]\ndate = 2024-07-26\ndays = [2024-07-27]\n")
    for name in ("c.yaml", "c.toml"):
        read = build(TrainSettings, read_config_file(str(tmp_path / name))).chat_option
        assert read == {"date": "2024-07-26", "days": ["2024-07-27"]}


@pytest.mark.parametrize("text", ["a", "=1", " =2"])
def test_pairs_need_a_name_and_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_pair(text)


def test_pairs_are_read_as_yaml() -> None:
    assert [parse_pair(t)[1] for t in ("a=1e-5", "a=3", "a=true", "a=x=y", "a=[1, 2]")] == [
        1e-5,
        3,
        True,
        "x=y",
        [1, 2],
    ]


def test_yaml_and_toml_give_the_same_settings(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("budget: rollouts=10\noption: {ucb: 0.2}\nreward: [math, exact]\n")
    (tmp_path / "a.toml").write_text('budget = "rollouts=10"\nreward = ["math", "exact"]\n[option]\nucb = 0.2\n')
    a, b = (build(TrainSettings, read_config_file(str(tmp_path / name))) for name in ("a.yaml", "a.toml"))
    assert a == b


@pytest.mark.parametrize("cls", [TrainSettings, EvalSettings])
def test_every_setting_is_documented_in_one_sentence(cls: type) -> None:
    for f in fields(cls):
        assert f.metadata["help"].endswith("."), f.name


def test_budgets() -> None:
    assert Budget.parse("rollouts=3k") == Budget("rollouts", 3000)
    assert Budget.parse(" tokens = 1.5M ") == Budget("tokens", 1_500_000)
    assert Budget.parse("updates=4").share(Spent(updates=3)) == 0.75
    for bad in ("3000", "steps=3", "rollouts=0", "rollouts=-1", "rollouts=nan", "seconds=1h", "rollouts=" + "9" * 400):
        with pytest.raises(ConfigError, match="UNIT=NUMBER"):
            Budget.parse(bad)


def test_the_stopwatch_leaves_asides_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("dopr.budget.time.perf_counter", lambda: now[0])
    watch = Stopwatch()
    with watch.paused():
        now[0] += 50
    assert watch.seconds == 0
    watch.start(before=7)
    now[0] += 3
    with watch.paused():
        now[0] += 1000
    now[0] += 2
    watch.start(before=999)  # only the first start counts
    assert watch.seconds == 12
