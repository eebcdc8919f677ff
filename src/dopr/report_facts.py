"""What a run's files say of its settings, its world and its base policy."""

from __future__ import annotations

from typing import Any

from dopr.errors import DoprError
from dopr.report_html import number
from dopr.report_run import RunRecord


def setting(run: RunRecord, name: str, default: Any) -> Any:
    """What the run used: as resolved, else as set, else ``default``."""
    for part in ("resolved", "settings"):
        value = run.config.get(part, {}).get(name)
        if value is not None:
            return value
    return default


def group_size(run: RunRecord) -> int:
    """Rollouts of a whole group."""
    return int(setting(run, "group_size", 8))


def rollouts_per_update(run: RunRecord) -> int:
    """Rollouts of an update if each of its prompts has a whole group."""
    return group_size(run) * int(setting(run, "prompts_per_round", 1))


def updates_cost_groups(run: RunRecord) -> bool:
    """Whether whole groups stood behind every update: nothing replayed, no group stopped early, no rollout used twice."""
    if setting(run, "replay", 0) or setting(run, "replay_updates", 0):
        return False
    spent = {name: number(run.spent.get(name)) or 0.0 for name in ("rollouts", "updates")}
    whole = all(pick.rollouts >= group_size(run) for pick in run.picks)
    return whole and spent["rollouts"] >= spent["updates"] * rollouts_per_update(run)


def world_of(run: RunRecord) -> dict[str, Any]:
    """What is known of the packaged world, if the run trained the packaged policy on one."""
    data, model = str(setting(run, "data", "")), str(run.config.get("settings", {}).get("model"))
    if not data.startswith("world:") or model != "tiny":
        return {}
    from dopr.tasks.tiny import measured_success
    from dopr.tasks.worlds import world_info

    try:
        info, measured = world_info(data.removeprefix("world:")), measured_success(data.removeprefix("world:"))
    except DoprError:
        return {}
    names = [skill.name for skill in info.skills]
    return {
        "names": names, "slots": [round(skill.frequency * info.block) for skill in info.skills],
        "numbers": {
            "rates": [measured[name].rate for name in names], "frequencies": [skill.frequency for skill in info.skills],
            "strategies": info.skills[-1].strategies, "p_plus": info.skills[-1].p_plus, "p_minus": info.skills[-1].p_minus,
        },
    }  # fmt: skip


def base_rates(run: RunRecord) -> list[float]:
    """Measured base success of the probe prompts."""
    base = next(iter(run.events.get("base", [])), {})
    samples = number(base.get("samples"))
    return [n / samples for n in base.get("successes", [])] if samples else []
