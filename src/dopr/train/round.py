"""One round: roll out the picks in chunks, review, tell, and assemble the rows of the update."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dopr.selection.rollouts import Review
from dopr.selection.settings import Pick
from dopr.train.advantages import group_advantages
from dopr.train.chunk import Chunk, rollouts_of, totals_of
from dopr.train.logged import log_advantages, log_round, reward_marks
from dopr.train.record import Round, outcome_of
from dopr.train.rows import Batch, check_text_only, fit_rows, join, take
from dopr.train.stated import Tokens, stated_answers
from dopr.train.untried import WORTH, Node, Trees, can_leave_out, untried_only

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer


#: TRL's losses that divide by the number of rows (or of micro-batches), empty ones too; the others divide by the tokens of the batch.
_MEANS_OVER_ROWS = ("grpo", "sapo", "bnpo", "dr_grpo", "luspo")


def _answers_of(chunks: Sequence[Chunk], picks: int) -> list[list[str]]:
    """Answer keys per pick, in the order of its rewards."""
    answers: list[list[str]] = [[] for _ in range(picks)]
    for chunk in chunks:
        for position, answer in zip(chunk.picks.tolist(), chunk.answers, strict=True):
            answers[position].append(answer)
    return answers


def _rollouts_by_pick(chunks: Sequence[Chunk], picks: int) -> list[int]:
    return [sum(int((chunk.picks == i).sum()) for chunk in chunks) for i in range(picks)]


class RoundRunner:
    """Runs one round for the trainer.

    Args:
        trainer: The trainer, for its data, reward weights, memory and accelerator.
        generate: TRL's own generate-and-score of a list of dataset rows.
        rows_per_process: Rows the user sized memory for; an update keeps at most as many on-policy rows.
    """

    def __init__(
        self, trainer: DoPRTrainer, generate: Callable[[list[dict[str, Any]]], Batch], rows_per_process: int
    ) -> None:
        self.trainer, self.generate, self.rows_per_process = trainer, generate, rows_per_process
        self.selector, self.accelerator = trainer.selector, trainer.accelerator
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.replayer = trainer.replayer
        self.trees = Trees(trainer, stated_answers(trainer.reward_funcs, trainer._tokenizer))
        self._rows: dict[int, dict[str, Any]] = {}

    def run(self, picks: list[Pick], *, started: float, selected: float) -> tuple[Batch, Round]:
        """Roll out, verify, tell; returns this process's rows of the update and the round's record."""
        picks = list(picks)
        marks = reward_marks(self.trainer)
        candidates, scores = self._candidates()
        chunks, rewards, actions = self._roll_out(picks)
        k = len(picks)
        for _ in range(self.selector.max_refills):
            if actions.count("keep") >= k:
                break
            extra = self.trainer.agree(self.selector.ask(exclude={pick.row for pick in picks}))
            if not extra:
                break  # no candidate is left
            more_chunks, more_rewards, more_actions = self._roll_out(extra, first=len(picks))
            more_candidates, more_scores = self._candidates()
            candidates, scores = candidates + more_candidates, scores + more_scores
            picks, rewards = picks + extra, rewards + more_rewards
            chunks, actions = chunks + more_chunks, actions + more_actions
        for surplus in [i for i, action in enumerate(actions) if action == "keep"][k:]:
            actions[surplus] = "drop"  # more informative groups came in than the update has room for
        generated = time.perf_counter()
        answers = _answers_of(chunks, len(picks))
        groups = [self.selector.tell(pick.prompt_id, rewards[i], answers[i]) for i, pick in enumerate(picks)]
        tokens = self._token_counts(chunks, len(picks))
        self.replayer.remember(chunks, picks, rewards)
        batch = self._on_policy_rows(chunks, actions)
        batch, replayed = self.replayer.extend(batch)
        spent = self.trainer.spent
        spent.rollouts += sum(map(len, rewards))
        spent.tokens += sum(tokens)
        spent.prompts += len(picks)
        outcomes = [outcome_of(g, any(map(self.selector.is_success, rewards[i]))) for i, g in enumerate(groups)]
        log_round(self.trainer, chunks, outcomes, marks)
        labels = getattr(self.selector, "labels", None)
        record = Round(
            number=self.trainer.round,
            picks=picks,
            started=started,
            candidates=candidates,
            scores=scores,
            rewards=rewards,
            rates=[None if g is None else round(g.rate, 6) for g in groups],
            outcomes=outcomes,
            actions=actions,
            disagreements=[None if g is None else round(g.disagreement, 6) for g in groups],
            tokens=tokens,
            searched=_rollouts_by_pick([c for c in chunks if c.search], len(picks)),
            from_base=_rollouts_by_pick([c for c in chunks if c.base], len(picks)),
            labels=[None if labels is None else int(labels[pick.row]) for pick in picks],
            skills=[self._row(pick.row).get("skill") for pick in picks],
            replayed=replayed,
            cut_off=sum(c.cut_off * len(c.picks) for c in chunks) / sum(len(c.picks) for c in chunks),
            select_seconds=selected - started,
            generate_seconds=generated - selected,
        )
        return batch, record

    def _row(self, row: int) -> dict[str, Any]:
        """A row of the dataset, read and decoded once per round."""
        if row not in self._rows:
            self._rows[row] = dict(self.trainer.train_dataset[row])
        return self._rows[row]

    def _candidates(self) -> tuple[list[str], list[float]]:
        """Ids and scores of the selector's latest candidate batch."""
        ids = [str(self.selector.ids[int(row)]) for row in self.selector.candidate_rows]
        return ids, [round(float(s), 6) for s in self.selector.candidate_scores]

    def _roll_out(self, picks: list[Pick], first: int = 0) -> tuple[list[Chunk], list[list[float | None]], list[str]]:
        """Generate until every pick is kept or dropped; chunks number the picks from ``first``."""
        chunks: list[Chunk] = []
        rewards: list[list[float | None]] = [[] for _ in picks]
        actions = ["keep"] * len(picks)
        wanted = {i: Review("more", pick.rollouts) for i, pick in enumerate(picks)}
        lengths: list[list[int]] = [[] for _ in picks]
        while wanted:
            for search, base in sorted({(more.search, more.base) for more in wanted.values()}):
                now = {i: more.rollouts for i, more in wanted.items() if (more.search, more.base) == (search, base)}
                failed = self._failed(chunks, now, base) if search else None
                chunk = self._generate_chunk(picks, now, failed, base)
                chunks.append(chunk)
                for position, length in zip(chunk.picks.tolist(), self._unmasked(chunk), strict=True):
                    lengths[position].append(length)
            rewards = self._rewards(chunks, len(picks))
            verdicts = {i: self._review(picks[i], rewards[i], lengths[i], i, chunks) for i in wanted}
            wanted = {i: verdict for i, verdict in verdicts.items() if verdict.action == "more"}
            actions = [verdicts[i].action if i in verdicts and i not in wanted else a for i, a in enumerate(actions)]
        return [replace(chunk, picks=chunk.picks + first) for chunk in chunks], rewards, actions

    def _rewards(self, chunks: Sequence[Chunk], picks: int) -> list[list[float | None]]:
        """Total rewards per pick so far; ``None`` where nothing could score a rollout."""
        rewards: list[list[float | None]] = [[] for _ in range(picks)]
        positions = [position for chunk in chunks for position in chunk.picks.tolist()]
        for position, total in zip(positions, totals_of(chunks, self.trainer.reward_weights), strict=True):
            rewards[position].append(total if math.isfinite(total) else None)
        return rewards

    def _review(
        self, pick: Pick, rewards: list[float | None], lengths: list[int], position: int, chunks: Sequence[Chunk]
    ) -> Review:
        """The selector's verdict; that of plain rollouts where generation cannot leave out what failed, or gains nothing by it."""
        verdict = self.selector.review(pick.prompt_id, rewards)
        if verdict.search and not (can_leave_out(self.trainer, lengths) and self._repeats(position, chunks)):
            return self.selector.rollouts.review(rewards, self.selector.verified_from)
        return replace(verdict, base=verdict.base and self.trainer.base_policy.available)

    def _repeats(self, position: int, chunks: Sequence[Chunk]) -> bool:
        """Whether the policy would noticeably often repeat what has failed; long answers it hardly ever does."""
        failed = self._failed(chunks, [position], base=False).get(position)
        (repeats,) = self.trainer.any_process(failed is not None and failed.tried >= WORTH)
        return repeats

    def _failed(self, chunks: Sequence[Chunk], picks: Collection[int], base: bool) -> dict[int, Node]:
        """A tree of what has failed so far on each of ``picks``, over all processes."""
        failed: dict[int, list[Tokens]] = {pick: [] for pick in picks}
        prompts: dict[int, Tokens] = {}
        for rollout in rollouts_of(self.trainer, chunks, picks):
            prompts[rollout.pick] = tuple(rollout.prompt.tolist())
            failed[rollout.pick].append(tuple(rollout.completion.tolist()))
        return self.trees.of(prompts, failed, base)

    def _generate_chunk(
        self, picks: list[Pick], wanted: dict[int, int], failed: dict[int, Node] | None, base: bool
    ) -> Chunk:
        """Generate; as a search without the completions that ``failed``, by pick, if it is given."""
        # The copies of a prompt stay contiguous, in whole groups of `unit`: vLLM's server mode counts on it.
        unit = math.gcd(*wanted.values())
        layout = [i for i, n in wanted.items() for _ in range(n)]
        while len(layout) % math.lcm(self.world, unit):
            layout += [layout[-1]] * unit
        share = len(layout) // self.world
        # A copy per rollout: TRL writes into them.
        mine = layout[self.rank * share : (self.rank + 1) * share]
        rows = [copy.deepcopy(self._row(picks[i].row)) for i in mine]
        usual = self.trainer.num_generations
        self.trainer.num_generations = unit  # TRL reads the group size of this generation here
        try:
            with untried_only(self.trainer, [(failed or {}).get(i) for i in mine], base):
                batch = self.generate(rows)
        finally:
            self.trainer.num_generations = usual
        return Chunk(
            batch=batch,
            picks=torch.tensor(layout),
            rewards=self.trainer.captured_rewards(),
            answers=self.trainer.captured_answers(),
            lengths=self.trainer.captured_lengths(),
            cut_off=self.trainer.captured_cut_off(),
            group_size=unit if len(set(wanted.values())) == 1 else 0,
            search=failed is not None,
            base=base,
        )

    def _local(self, chunk: Chunk, values: torch.Tensor) -> torch.Tensor:
        share = len(chunk.picks) // self.world
        return values[self.rank * share : (self.rank + 1) * share]

    def _token_counts(self, chunks: Sequence[Chunk], picks: int) -> list[int]:
        """Generated tokens per pick over all processes."""
        counts = np.zeros(picks, np.int64)
        for chunk in chunks:
            np.add.at(counts, chunk.picks.numpy(), chunk.lengths)
        return [int(n) for n in counts]

    def _unmasked(self, chunk: Chunk) -> list[int]:
        """Completion tokens that are learned from, of each of the chunk's rollouts over all processes."""
        lengths: list[int] = self.accelerator.gather(chunk.batch["completion_mask"].sum(dim=1)).tolist()
        return lengths

    def _on_policy_rows(self, chunks: Sequence[Chunk], actions: Sequence[str]) -> Batch:
        """The kept groups' rows with their advantages; a single chunk keeps TRL's batch untouched."""
        pad_id, trainer = self.trainer.pad_id, self.trainer
        keep = [i for i, action in enumerate(actions) if action == "keep"]
        chunk = chunks[0]
        whole = chunk.group_size > 1 and bool((torch.bincount(chunk.picks) == chunk.group_size).all())
        if len(chunks) == 1 and len(keep) == len(actions) and whole:
            group = self._local(chunk, chunk.picks).to(chunk.batch["advantages"].device)
            batch = {**chunk.batch, "dopr_group": group}
        else:
            for chunk in chunks:
                check_text_only(chunk.batch)
            picks = torch.cat([chunk.picks for chunk in chunks])
            rewards = torch.cat([chunk.rewards for chunk in chunks])
            kept = torch.isin(picks, torch.tensor(keep, dtype=picks.dtype))
            advantages = torch.zeros(len(picks), device=rewards.device)
            if kept.any():
                advantages[kept] = group_advantages(
                    rewards[kept], picks[kept], trainer.reward_weights,
                    scale=trainer.scale_rewards, aggregation=trainer.multi_objective_aggregation,
                )  # fmt: skip
            log_advantages(trainer, advantages)
            parts, start = [], 0
            for chunk in chunks:
                stop = start + len(chunk.picks)
                local = self._local(chunk, advantages[start:stop]).to(chunk.batch["advantages"])
                group = self._local(chunk, picks[start:stop]).to(local.device)
                parts.append({**chunk.batch, "advantages": local, "dopr_group": group})
                start = stop
            batch = join(parts, pad_id)
            stays = torch.isin(batch["dopr_group"].cpu(), torch.tensor(keep, dtype=torch.long))
            if stays.any() and not stays.all():  # dropped groups leave; if all are dropped, their null rows stay
                batch = take(batch, stays.nonzero().flatten())
        return self._fit(batch)

    def _fit(self, batch: Batch) -> Batch:
        """Thin to the rows the user sized memory for, and to equal micro-batches."""
        rows, parts = len(batch["advantages"]), self.trainer.args.steps_per_generation
        if rows > self.rows_per_process:
            signs = batch["advantages"].sign().long().cpu().numpy()
            strata = batch["dopr_group"].cpu().numpy() * 3 + signs + 1
            rng = np.random.default_rng([self.trainer.args.seed, self.selector.round, self.rank])
            index, weights = fit_rows(strata, self.rows_per_process, rng)
            batch = take(batch, torch.from_numpy(index).to(batch["advantages"].device))
            batch["advantages"] = batch["advantages"] * torch.from_numpy(weights).to(batch["advantages"])
        elif rows % parts:  # fill up with rows that no loss sees
            filler = take(batch, torch.zeros(parts - rows % parts, dtype=torch.long, device=batch["advantages"].device))
            empty = {name: torch.zeros_like(filler[name]) for name in ("advantages", "completion_mask")}
            batch = join([batch, {**filler, **empty}], self.trainer.pad_id)
            if self.trainer.loss_type in _MEANS_OVER_ROWS:  # of which there are more now
                batch["advantages"] = batch["advantages"] * (len(batch["advantages"]) / rows)
        return batch
