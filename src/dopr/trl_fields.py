"""Fields of TRL's configuration that dopr's own settings decide, so that both sides of a run are told the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dopr.errors import ConfigError

#: What to give instead of ``--trainer FIELD=VALUE``, which would reach the trainer alone: evaluation, records and seeds would not know.
INSTEAD: Mapping[str, str] = {
    "seed": "--seed",
    "data_seed": "--seed",
    "learning_rate": "--learning-rate",
    "num_generations": "--group-size",
    "generation_batch_size": "--prompts-per-round",
    "steps_per_generation": "--prompts-per-round and --micro-batch",
    "per_device_train_batch_size": "--micro-batch",
    "gradient_accumulation_steps": "--prompts-per-round and --micro-batch",
    "max_completion_length": "--max-completion-length",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "reward_weights": "--reward-weight",
    "chat_template_kwargs": "--chat-option",
    "output_dir": "--output",
    "dopr_events": "--output",
    "use_cpu": "--device",
    "save_steps": "--save-every",
    "save_strategy": "--save-every",
    "dopr_strategy": "--strategy",
    "dopr_candidates": "--candidates",
    "dopr_chunk": "--chunk",
    "dopr_wrong_cap": "--wrong-cap",
    "dopr_right_cap": "--right-cap",
    "dopr_replay": "--replay",
    "dopr_replay_updates": "--replay-updates",
    "dopr_options": "--option",
    "dopr_features": "--features",
    "dopr_probe": "--probe",
    "dopr_warn_constant": "--warn-constant",
    "dopr_stop_constant": "--stop-constant",
    "dopr_stop_unscorable": "--stop-unscorable",
    "dopr_force_resume": "--force",
    "dopr_success": "--success",
}


def check_overrides(given: Mapping[str, Any]) -> None:
    """Refuse trainer fields that a setting of dopr decides.

    Raises:
        ConfigError: Which one, and the setting.
    """
    for name, value in given.items():
        if name in INSTEAD:
            raise ConfigError(
                f"--trainer {name}={value} would reach the trainer alone, not the evaluation and the records. Use {INSTEAD[name]}."
            )
