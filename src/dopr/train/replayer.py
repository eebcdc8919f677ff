"""What an update learns from besides its round's rollouts: replayed successes, and updates from them alone."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dopr.selection.memory import Success
from dopr.selection.settings import Pick
from dopr.train.chunk import Chunk, Rollout, rollouts_of
from dopr.train.rows import Batch, check_text_only, join, no_rows, success_rows

logger = logging.getLogger("dopr")

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer


def agreeing(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How many tokens two completions have in common before they part."""
    n = min(len(one), len(other))
    apart = np.flatnonzero(one[:n] != other[:n])
    return int(apart[0]) if len(apart) else n


class Replayer:
    """Offers successes to the selector, and adds to updates what the selector replays.

    Args:
        trainer: The trainer, for its selector, policy and accelerator.

    Attributes:
        due: Updates from replayed rows alone that are left before the next round.
    """

    def __init__(self, trainer: DoPRTrainer) -> None:
        self.trainer, self.selector, self.accelerator = trainer, trainer.selector, trainer.accelerator
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        parts = self.world * trainer.args.steps_per_generation
        if 0 < self.selector.n_replay < parts:
            logger.warning(
                "An update has %d micro-batches over all processes, more than the %d replayed rows, which are dealt evenly: none "
                "would be replayed. Set dopr_replay to a multiple of %d.", parts, self.selector.n_replay, parts,
            )  # fmt: skip
        self.due = 0
        self._foreign = False
        self._columns: Batch = {}  # of the latest round's batch, without rows

    def remember(
        self, chunks: Sequence[Chunk], picks: Sequence[Pick], rewards: Sequence[Sequence[float | None]]
    ) -> None:
        """Offer this round's successes to the selector, the same ones in the same order on every process.

        Each is learned from where it leaves the failures of its group: what they share with it did not make it right.
        """
        if not self.selector.n_replay:
            return
        solved = {i for i, some in enumerate(rewards) if any(map(self.selector.is_success, some))}
        right: list[Rollout] = []
        wrong: dict[int, list[Rollout]] = defaultdict(list)
        for rollout in rollouts_of(self.trainer, chunks, solved):
            (right if self.selector.is_success(rollout.reward) else wrong[rollout.pick]).append(rollout)
        for one in right:
            start = max((agreeing(one.completion, other.completion) for other in wrong[one.pick]), default=0)
            if not one.own and not self._foreign:
                self._foreign = True
                logger.warning(
                    "Completions that hold text of tools or an environment are not replayed: the policy would learn that text as its own."
                )
            if one.own and start < len(one.completion):  # a truncated completion may be masked out whole
                self.selector.remember(Success(picks[one.pick].prompt_id, one.prompt, one.completion, start))

    def extend(self, batch: Batch) -> tuple[Batch, int]:
        """A round's batch with replayed successes, and how many; further updates are due."""
        # A few successes repeated alone would be learned by heart, at the cost of what has not been seen yet.
        enough = len(self.selector.memory) >= self.selector.n_replay
        self.due = self.selector.replay_updates if enough else 0
        self._columns = no_rows(batch)
        rows = len(batch["advantages"])
        batch = self._add(batch, self.selector.replay())
        return batch, (len(batch["advantages"]) - rows) * self.world

    def window(self) -> Batch | None:
        """The batch of an update from replayed rows alone; ``None`` = it is time for a round."""
        replayed = self.selector.replay() if self.due else []
        batch = self._add(self._columns, replayed) if replayed else {}
        if not batch or not len(batch["advantages"]):
            self.due = 0
            return None
        self.due -= 1
        return batch

    def _add(self, batch: Batch, replayed: list[Success]) -> Batch:
        """Append this process's share of the replayed successes and count the batch's tokens anew if its rows changed."""
        trainer = self.trainer
        parts = trainer.args.steps_per_generation
        share = len(replayed) // (self.world * parts) * parts
        if share:
            check_text_only(batch)
            mine = slice(self.rank * share, (self.rank + 1) * share)
            rows = success_rows(replayed[mine], batch, trainer.pad_id, trainer.args.dopr_replay_weight)
            batch = {"tool_mask": torch.ones_like(batch["completion_mask"]), **batch}
            batch = join([batch, trainer.fill_log_probabilities(rows)], trainer.pad_id)
        if "num_items_in_batch" not in batch:
            mask = batch["completion_mask"] * batch.get("tool_mask", 1)
            batch["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What goes on after a checkpoint, as plain values and arrays."""
        columns = {
            key: [str(value.dtype).removeprefix("torch."), *value.shape[1:]] for key, value in self._columns.items()
        }
        return {"due": self.due, "columns": columns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore."""
        self.due = int(state["due"])
        self._columns = {
            key: torch.empty((0, *map(int, width)), dtype=getattr(torch, dtype), device=self.accelerator.device)
            for key, (dtype, *width) in state["columns"].items()
        }
