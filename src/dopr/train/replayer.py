"""Replayed rows of an update: verified successes, and anchors that hold the policy where training has not been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dopr.selection.anchors import anchor_advantage
from dopr.selection.memory import Success
from dopr.selection.settings import Pick
from dopr.train.advantages import total_reward
from dopr.train.rows import Batch, check_text_only, join, strip_padding, success_rows

if TYPE_CHECKING:
    from dopr.train.round import Chunk
    from dopr.train.trainer import DoPRTrainer


class Replayer:
    """Offers a round's rollouts to the selector, and adds what the selector replays to the update.

    Args:
        trainer: The trainer, for its selector, policy and accelerator.
        rows_per_process: Rows per forward pass that the user sized memory for.
    """

    def __init__(self, trainer: DoPRTrainer, rows_per_process: int) -> None:
        self.trainer, self.rows_per_process = trainer, rows_per_process
        self.selector, self.accelerator = trainer.selector, trainer.accelerator
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index

    def remember(self, chunks: Sequence[Chunk], picks: list[Pick]) -> None:
        """Offer this round's verified successes to the selector, the same ones in the same order on every process."""
        if not self.selector.n_replay:
            return
        for chunk in chunks:
            totals = total_reward(chunk.rewards, self.trainer.reward_weights).tolist()
            good = {i for i, total in enumerate(totals) if self.selector.is_success(total)}
            offered = range(len(totals)) if self.selector.wants_rejected else sorted(good)
            share = len(chunk.picks) // self.world
            mine = {i: strip_padding(chunk.batch, i - self.rank * share) for i in offered if i // share == self.rank}
            rejected = []
            for i, (prompt, completion) in sorted(self.trainer.gather_dict(mine).items()):
                if len(completion):  # a truncated completion may be masked out whole
                    rollout = Success(picks[int(chunk.picks[i])].prompt_id, prompt, completion)
                    if i in good:
                        self.selector.remember(rollout)
                    else:
                        rejected.append(rollout)
            for rollout, anchor in zip(rejected, self._sequence_log_probabilities(rejected, chunk.batch), strict=True):
                self.selector.witness(replace(rollout, anchor=anchor))

    def _sequence_log_probabilities(self, rollouts: list[Success], template: Batch) -> list[float]:
        """Log-probability (nats) of each completion under the current policy."""
        out: list[float] = []
        size = self.rows_per_process
        for start in range(0, len(rollouts), size):
            rows = success_rows(rollouts[start : start + size], template, self.trainer.pad_id, 1.0)
            out += (self.trainer.log_probabilities(rows) * rows["completion_mask"]).sum(dim=1).tolist()
        return out

    def _anchor_weights(self, replayed: list[Success], template: Batch) -> NDArray[np.float64]:
        """Advantage of each anchor and 1 for each success; on every process alike, as a sharded model's forward must be."""
        weights = np.ones(len(replayed))
        anchors = [i for i, success in enumerate(replayed) if success.anchor is not None]
        if anchors:
            now = np.array(self._sequence_log_probabilities([replayed[i] for i in anchors], template))
            weights[anchors] = anchor_advantage(now, np.array([replayed[i].anchor for i in anchors], np.float64))
        return weights

    def add(self, batch: Batch, replayed: list[Success]) -> Batch:
        """Append this process's share of the replayed successes and count the batch's tokens anew if its rows changed."""
        trainer = self.trainer
        parts = trainer.args.steps_per_generation
        share = len(replayed) // (self.world * parts) * parts
        if share:
            check_text_only(batch)
            mine = slice(self.rank * share, (self.rank + 1) * share)
            rows = success_rows(replayed[mine], batch, trainer.pad_id, trainer.args.dopr_replay_weight)
            rows["advantages"] *= torch.from_numpy(self._anchor_weights(replayed, batch)[mine]).to(rows["advantages"])
            batch = join([batch, trainer.fill_log_probabilities(rows)], trainer.pad_id)
        if "num_items_in_batch" not in batch:
            mask = batch["completion_mask"] * batch.get("tool_mask", 1)
            batch["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()
        return batch
