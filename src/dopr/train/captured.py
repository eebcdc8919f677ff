"""What TRL computes on its way and keeps to itself: rewards, lengths, log-probabilities and entropies of the latest call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from dopr.tasks.answer_key import answer_key
from dopr.train.watching import Watching


class Captured(Watching):
    """Mixin of ``DoPRTrainer`` that listens to TRL's own methods and changes nothing that they return."""

    def _set_up_capture(self) -> None:
        self._current_groups: tuple[torch.Tensor, torch.Tensor] | None = None
        self._captured_entropies: torch.Tensor | None = None
        self._captured_logps: torch.Tensor | None = None
        self._captured_rewards: torch.Tensor | None = None
        self._captured_answers: list[str] = []
        self._captured_lengths: list[int] = []

    def captured_rewards(self) -> torch.Tensor:
        """Rewards of the latest generation call over all processes, shape (world rows, functions)."""
        if self._captured_rewards is None:
            raise RuntimeError(
                "TRL finished a generation without calling _calculate_rewards; this TRL is not supported."
            )
        return self._captured_rewards

    def captured_answers(self) -> list[str]:
        """Answer keys of the latest generation call over all processes, in the order of ``captured_rewards``."""
        return self._captured_answers

    def captured_lengths(self) -> list[int]:
        """Tokens of every completion of the latest generation call, cut-off ones that TRL masks, too; as ``captured_answers``."""
        return self._captured_lengths

    @property
    def captured_tokens(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Log-probabilities and entropies (nats) of the latest micro-batch's completion tokens, shape (R, C) each."""
        if self._captured_logps is None or self._captured_entropies is None:
            return None
        return self._captured_logps, self._captured_entropies

    def captured_cut_off(self) -> float:
        """Share of the latest generation call's completions that were cut off."""
        shares = self._metrics["train"].get("completions/clipped_ratio")
        return float(shares[-1]) if shares else 0.0

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(*args, **kwargs)
        self._captured_rewards = rewards  # gathered over processes: (world rows, functions), NaN = unscorable
        if self.model.training:  # TRL's own evaluations come here, too
            completions = kwargs["completions"] if "completions" in kwargs else args[2]
            mine = [answer_key(completion) for completion in completions]
            self._captured_answers = mine if self.accelerator.num_processes == 1 else gather_object(mine)
            lengths = [
                len(ids) for ids in (kwargs["completion_ids_list"] if "completion_ids_list" in kwargs else args[3])
            ]
            self._captured_lengths = lengths if self.accelerator.num_processes == 1 else gather_object(lengths)
        return rewards

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        self._captured_entropies = None
        self._current_groups = (inputs["dopr_group"], inputs["completion_mask"]) if "dopr_group" in inputs else None
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        out = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if kwargs.get("compute_entropy") and isinstance(out, tuple) and len(out) > 1 and out[1] is not None:
            self._captured_logps, self._captured_entropies = out[0].detach(), out[1].detach()
        return out

    def _entropies(self, picks: int) -> dict[int, float]:
        """Mean token entropy (nats) per pick over all processes, from the latest micro-batch."""
        sums = np.zeros((picks, 2))
        if self._captured_entropies is not None and self._current_groups is not None:
            groups, mask = self._current_groups
            weight = mask.to(self._captured_entropies.dtype)
            totals = torch.stack([(self._captured_entropies * weight).sum(1), weight.sum(1)], dim=1).double().cpu()
            for group, total in zip(groups.tolist(), totals.numpy(), strict=True):
                if group >= 0:
                    sums[group] += total
        if self.accelerator.num_processes > 1:
            sums = sum(gather_object([sums]), np.zeros((picks, 2)))
        return {i: float(total / tokens) for i, (total, tokens) in enumerate(sums) if tokens > 0}
