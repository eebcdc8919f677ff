"""Anchors in the trainer: what must not get lost along failed rollouts y of the base policy pi_0.

At each position t, with b = pi_0(y_t | y_<t) and q = pi(y_t | y_<t), the term is

    (1 - b) KL(pi_0(. | not y_t) || pi(. | not y_t))  +  kl(b, q) where q > b

The first part holds the odds of all tokens but the drawn one, the second keeps that one from gaining. Where q >= b both together are
KL(pi_0 || pi), by the chain rule. Where q < b the failed way has become less likely in favour of the others, which is no loss:
where one skill is shared by all prompts it is what training elsewhere does for this one, and the full divergence held it back.
The k likeliest tokens and the rest together are compared, k + 1 cells: never more than over the whole vocabulary, and the
same wherever the rest has next to no mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dopr.selection.memory import LIKELY, Success
from dopr.train.forward import completion_logits

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer

_LIKELIEST = 32
_POSITIONS = 64  # of a long completion the beginning is held: there the way is chosen, and logits are large
_TINY = 1e-6
# Below this a position has not moved, in nats: Adam would scale mere rounding up to full steps where nothing else pulls.
_ROUNDING, _ROUNDING_HALF = 1e-5, 1e-3  # in float32, and where the forward runs in 16 bits


def _log_probabilities(trainer: DoPRTrainer, model: Any, rollouts: Sequence[Success]) -> torch.Tensor:
    logits = completion_logits(model, [(r.prompt.tolist(), r.completion.tolist()) for r in rollouts], trainer.pad_id)
    return torch.log_softmax(logits.float() / trainer.temperature, dim=-1)


def _rounding(trainer: DoPRTrainer) -> float:
    half = trainer.args.bf16 or trainer.args.fp16 or trainer.model.dtype != torch.float32
    return _ROUNDING_HALF if half else _ROUNDING


def as_anchors(trainer: DoPRTrainer, rollouts: Sequence[Success], rows: int) -> list[Success]:
    """``rollouts``, just drawn, with the policy's token distributions; ``rows`` go through a forward pass at once."""
    cut = [replace(r, completion=r.completion[:_POSITIONS]) for r in rollouts]
    anchors: list[Success] = []
    for start in range(0, len(cut), rows):
        part = cut[start : start + rows]
        with torch.no_grad():
            logps, tokens = _log_probabilities(trainer, trainer.model, part).topk(
                min(_LIKELIEST, trainer.model.config.get_text_config().vocab_size), dim=-1
            )
        for i, rollout in enumerate(part):
            base = np.empty((len(rollout.completion), tokens.shape[-1]), LIKELY)
            base["token"] = tokens[i, : len(base)].cpu().numpy()
            base["logp"] = logps[i, : len(base)].cpu().numpy()
            anchors.append(replace(rollout, base=base))
    return anchors


def divergence(trainer: DoPRTrainer, model: Any, anchors: Sequence[Success]) -> torch.Tensor:
    """Sum over ``anchors`` and their positions of the term above in nats, with gradient."""
    now = _log_probabilities(trainer, model, anchors)
    terms = []
    for i, anchor in enumerate(anchors):
        if anchor.base is None:
            raise ValueError("A success is no anchor: it has no base distributions.")
        tokens = torch.from_numpy(anchor.base["token"].astype(np.int64)).to(now.device)
        base = torch.from_numpy(anchor.base["logp"].copy()).to(now.device)
        likely = now[i, : len(tokens)].gather(1, tokens)
        drawn = (
            tokens == torch.from_numpy(np.asarray(anchor.completion[: len(tokens)], np.int64)).to(now.device)[:, None]
        )
        rest, rest_now = ((1 - x.exp().sum(1)).clamp(min=_TINY) for x in (base, likely))
        b, q = ((x.exp() * drawn).sum(1).clamp(_TINY, 1 - _TINY) for x in (base, likely))
        others = (base.exp() * (base - likely) * ~drawn).sum(1) + rest * (rest / rest_now).log()
        # (1 - b) times the logarithm of (1 - q) / (1 - b) turns the sum over other tokens into a divergence given "not drawn".
        shift = (1 - b) * (torch.log1p(-q) - torch.log1p(-b))
        risen = (b * (b / q).log() - shift) * (q > b)
        per_position = others + shift + risen
        terms.append((per_position * (per_position.detach() > _rounding(trainer))).sum())
    return torch.stack(terms).sum()
