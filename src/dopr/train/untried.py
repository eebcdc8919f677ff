"""Sampling without replacement: what has failed on a prompt is not drawn again.

A verifier gives the same completion the same verdict, so drawing a failed one again teaches nothing, and where the policy is sure of
a wrong answer most draws are such repeats. The failed completions of a prompt are kept as a tree of tokens. ``tried`` of a node is
the chance that the policy, once there, ends in one of them: 1 at the end of one, elsewhere the sum over its children of
p(child) tried(child). If each next token is drawn in proportion to p(token) (1 - tried(token)), completions are drawn
in proportion to their own probability among those not yet tried.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from dopr.train.forward import completion_logits

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer

LONGEST = 256  # tokens: longer ones hardly ever repeat, and their logits are large
_LEFT = 1e-30  # of a way that was tried altogether: no row must be left without a token, whatever rounding does

Tokens = tuple[int, ...]


class Node:
    """Where some failed completions agree so far.

    Attributes:
        chance: Probability of the token that leads here.
        tried: Probability of going on to a failed completion from here.
        children: By next token.
    """

    __slots__ = ("chance", "children", "tried")

    def __init__(self, chance: float) -> None:
        self.chance, self.tried = chance, 1.0
        self.children: dict[int, Node] = {}


def tree_of(completions: Sequence[Tokens], logps: Sequence[Sequence[float]]) -> Node:
    """The tree of failed ``completions``.

    Args:
        completions: Token ids, with the end token where there is one.
        logps: Log-probabilities (nats) of these tokens in the draws to come.
    """
    root = Node(1.0)
    nodes = [root]
    for tokens, steps in zip(completions, logps, strict=True):
        node = root
        for token, logp in zip(tokens, steps, strict=True):
            if token not in node.children:
                node.children[token] = Node(math.exp(logp))
                nodes.append(node.children[token])
            node = node.children[token]
    for node in reversed(nodes):  # children come after their parents
        if node.children:
            node.tried = min(1.0, sum(child.chance * child.tried for child in node.children.values()))
    return root


class WithoutReplacement(LogitsProcessor):
    """Draws tokens in proportion to p (1 - tried), row by row.

    Args:
        trees: Failed completions of each row's prompt, or ``None``.
        temperature: Of the draws; it divides the logits afterwards.
    """

    def __init__(self, trees: Sequence[Node | None], temperature: float) -> None:
        self.at, self.temperature = list(trees), temperature
        self._begun = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores (rows, vocabulary) with the tried ways made rarer."""
        if self._begun:
            last = input_ids[:, -1].tolist()
            self.at = [node and node.children.get(token) for node, token in zip(self.at, last, strict=True)]
        self._begun = True
        if not any(self.at):
            return scores
        scores = scores.clone()
        for row, node in enumerate(self.at):
            if node is not None and node.children:
                left = [max(_LEFT, 1 - child.tried) for child in node.children.values()]
                shift = self.temperature * torch.tensor(left, dtype=scores.dtype, device=scores.device).log()
                scores[row, list(node.children)] += shift
        return scores


def can_leave_out(trainer: DoPRTrainer, lengths: Sequence[int]) -> bool:
    """Whether draws can leave out failed completions of these ``lengths``, in tokens.

    One of them must be short enough to be kept (0 is a truncated one that is masked out), and generation must take a logits
    processor for single rows, which vLLM and continuous batching do not.
    """
    engine = trainer.use_vllm or trainer.use_transformers_continuous_batching
    return not engine and any(0 < length <= LONGEST for length in lengths)


def trees_for(trainer: DoPRTrainer, prompts: dict[int, Tokens], failed: dict[int, list[Tokens]]) -> dict[int, Node]:
    """A tree per prompt, with the policy's present probabilities; one forward pass per prompt."""
    trees = {}
    for key, completions in failed.items():
        some = sorted({tokens for tokens in completions if 0 < len(tokens) <= LONGEST})
        if not some:
            continue
        with torch.no_grad():
            logits = completion_logits(trainer.model, [(prompts[key], tokens) for tokens in some], trainer.pad_id)
        steps = []
        for i, tokens in enumerate(some):
            logps = torch.log_softmax(logits[i, : len(tokens)].float() / trainer.temperature, dim=-1)
            steps.append(logps.gather(1, torch.tensor(tokens, device=logps.device)[:, None])[:, 0].tolist())
        trees[key] = tree_of(some, steps)
    return trees


@contextmanager
def untried_only(trainer: DoPRTrainer, trees: Sequence[Node | None]) -> Iterator[None]:
    """Generate without the completions in ``trees``, one per row of the batch."""
    if not any(trees):
        yield
        return
    model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    replaced = vars(model).get("generate")  # by somebody else, on this model alone
    processors = LogitsProcessorList([WithoutReplacement(trees, trainer.temperature)])
    model.generate = functools.partial(model.generate, logits_processor=processors)
    try:
        yield
    finally:
        if replaced is None:
            del model.generate  # the class has one
        else:
            model.generate = replaced
