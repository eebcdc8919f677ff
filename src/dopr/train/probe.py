"""How far each update moves the policy: E_x KL(new || old), measured on fixed prompts for theorem T2 (docs/theory.md).

Before a measured update one completion per prompt is drawn from the old policy and its token distributions are kept; after it
the new ones follow on the same tokens. Per prompt the estimate is ``sum_t w_t KL(new(.|y_<t) || old(.|y_<t))``: exact over the
vocabulary at every token, with the weight ``w_t = prod_{s<t} new(y_s)/old(y_s)`` that turns draws from the old policy into an
expectation under the new one. It is unbiased and never negative; what varies is which prompts and completions were drawn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback

from dopr.errors import ConfigError
from dopr.generation import Completion, Prompt, Sampling, generate
from dopr.train.forward import completion_logits

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer

_KEPT = 2**25  # log-probabilities kept between before and after; beyond it some tokens stand for all
_FORWARD = 2**26  # logits computed at once


@dataclass
class _Before:
    """The old policy on its own completions."""

    rows: list[tuple[list[int], Completion]]  # prompt ids and completion
    positions: list[torch.Tensor]  # tokens looked at, per prompt, ascending
    logps: list[torch.Tensor]  # (positions, vocabulary) per prompt, old
    chosen: list[torch.Tensor]  # (tokens,) log-probability of each drawn token, old
    seconds: float


class KLProbe(TrainerCallback):
    """Measures the divergence of every so-manieth update and writes a ``probe`` event; training itself is not touched.

    Args:
        trainer: The trainer; its stopwatch stands still meanwhile.
        prompts: The fixed prompts, such as held-out ones: the expectation over x is over prompts like these.

    Raises:
        ConfigError: Weights are spread over processes, so that no process could run the policy alone.
    """

    def __init__(self, trainer: DoPRTrainer, prompts: Sequence[Prompt]) -> None:
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ConfigError(
                "The KL probe needs the whole policy in one process; set dopr_probe to 0 with FSDP or DeepSpeed."
            )
        self.trainer, self.prompts = trainer, list(prompts)
        self.prompt_ids = trainer.token_ids(self.prompts)
        self._before: _Before | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the old policy if this update is to be measured."""
        if state.global_step % args.dopr_probe_every == 0 and self.trainer.events is not None:
            with self.trainer.stopwatch.paused():
                self._before = self._look(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure how far the update has moved it."""
        before, self._before = self._before, None
        if before is None or self.trainer.events is None:
            return
        with self.trainer.stopwatch.paused():
            started = time.perf_counter()
            values = self._divergences(before)
            seconds = before.seconds + time.perf_counter() - started
            self.trainer.events.write(
                "probe", round=self.trainer.round, step=state.global_step, kl=float(np.mean(values)),
                values=[float(f"{v:.6g}") for v in values], seconds=round(seconds, 4),
                tokens=sum(c.n_tokens for _, c in before.rows),
            )  # fmt: skip

    def _look(self, step: int) -> _Before:
        started = time.perf_counter()
        model, args = self.trainer.accelerator.unwrap_model(self.trainer.model), self.trainer.args
        sampling = Sampling(
            temperature=self.trainer.temperature, max_new_tokens=self.trainer.max_completion_length,
            seed=args.seed + 7919 * (step + 1), batch_size=max(1, args.per_device_train_batch_size, 32),
            chat_options=self.trainer.chat_template_kwargs,
        )  # fmt: skip
        drawn = generate(model, self.trainer._tokenizer, self.prompts, sampling)
        rows = [(ids, completions[0]) for ids, completions in zip(self.prompt_ids, drawn, strict=True)]
        most = max(1, _KEPT // (len(rows) * model.config.vocab_size))
        rng = np.random.default_rng([args.seed, step])
        positions = [
            torch.from_numpy(np.sort(rng.permutation(c.n_tokens)[:most]))
            if c.n_tokens > most
            else torch.arange(c.n_tokens)
            for _, c in rows
        ]
        logps, chosen = self._log_probabilities(model, rows, positions)
        return _Before(rows, positions, logps, chosen, time.perf_counter() - started)

    def _divergences(self, before: _Before) -> list[float]:
        """Estimate per prompt, in nats."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        logps, chosen = self._log_probabilities(model, before.rows, before.positions)
        values = []
        for i, (_, completion) in enumerate(before.rows):
            new, old = logps[i].double(), before.logps[i].double()
            # The linear terms sum to 0; with them every summand is positive and rounding enters squared.
            per_token = (new.exp() * (new - old) - new.exp() + old.exp()).sum(dim=1).clamp(min=0)
            ratios = (chosen[i] - before.chosen[i]).double().cumsum(0)
            weights = torch.cat([ratios.new_zeros(1), ratios[:-1]])[before.positions[i].to(ratios.device)].exp()
            share = completion.n_tokens / len(before.positions[i])
            values.append(float((weights * per_token).sum() * share))
        return values

    def _log_probabilities(
        self, model: Any, rows: Sequence[tuple[list[int], Completion]], positions: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Per row: log-probabilities over the vocabulary at ``positions``, and of each token of the completion."""
        last = max(c.n_tokens for _, c in rows)
        size = max(1, _FORWARD // ((last + 1) * model.config.vocab_size))
        training = [module for module in model.modules() if module.training]
        model.eval()
        logps: list[torch.Tensor] = []
        chosen: list[torch.Tensor] = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            with torch.no_grad():
                logits = completion_logits(model, [(ids, c.token_ids) for ids, c in part], self.trainer.pad_id)
            logits = logits.float() / self.trainer.temperature
            for i, (_, c) in enumerate(part):
                row = torch.log_softmax(logits[i, : c.n_tokens].double(), dim=-1)
                tokens = torch.tensor(c.token_ids, device=row.device)
                chosen.append(row.gather(1, tokens[:, None])[:, 0])
                logps.append(row[positions[start + i].to(row.device)].float())
        for module in training:
            module.training = True
        return logps, chosen
