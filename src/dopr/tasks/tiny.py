"""The packaged tiny policy: where it is, how to load it, and how often it is right before any training.

A three-layer Llama of half a million parameters with a byte-level tokenizer, an ordinary transformers checkpoint: it
also loads with AutoModelForCausalLM and AutoTokenizer from `tiny_policy_path()`. scripts/make_tiny_policy.py made it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dopr.errors import ConfigError, ModelError, suggest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredRate:
    """Success of the untrained packaged policy on one skill's held-out prompts, sampled at temperature 1."""

    rate: float
    low: float  # 95 % Wilson interval
    high: float
    n: int  # completions sampled


def tiny_policy_path() -> Path:
    """Directory of the packaged checkpoint.

    Raises:
        ModelError: this installation lacks the checkpoint.
    """
    path = Path(str(files("dopr").joinpath("assets/tiny")))
    if not (path / "model.safetensors").is_file():
        raise ModelError(
            f"The packaged tiny policy is missing from {path}: this installation is incomplete. Reinstall dopr, or in "
            f"a source tree run: python scripts/make_tiny_policy.py --out {path}"
        )
    return path


def load_tiny_policy() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The packaged policy (float32, CPU) and its tokenizer. Needs the ``train`` extra."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tiny_policy_path()
    return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)


def measured_success(world: str) -> dict[str, MeasuredRate]:
    """Measured base success of the packaged policy per skill of ``world``; the design's is in `worlds.world_info`.

    Raises:
        ConfigError: ``world`` is no packaged world.
        ModelError: this installation lacks the checkpoint.
    """
    report: dict[str, Any] = json.loads((tiny_policy_path() / "worlds.json").read_text())["worlds"]
    worlds = {name: facts["skills"] for name, facts in report.items() if "skills" in facts}
    if world not in worlds:
        raise ConfigError(f"There is no packaged world {world!r}. {suggest(world, worlds)}")
    return {
        skill: MeasuredRate(rate=r["rate"], low=r["low"], high=r["high"], n=r["n"])
        for skill, r in worlds[world].items()
    }
