"""Sampling without replacement: what has failed on a prompt is not drawn again.

A verifier gives the same completion the same verdict, so drawing a failed one again teaches nothing, and where the policy is sure of
a wrong answer most draws are such repeats. The failed completions of a prompt are kept as a tree of tokens. ``tried`` of a node is
the chance that the policy, once there, ends in one of them: 1 at the end of one, elsewhere the sum over its children of
p(child) tried(child). If each next token is drawn in proportion to p(token) (1 - tried(token)), completions are drawn
in proportion to their own probability among those not yet tried.

Where the verdict hangs on the answer alone (``dopr.train.stated``), whole answers are left out: once a completion has stated an answer
that failed, all next tokens but those that change it count as tried.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from dopr.train.forward import completion_logits
from dopr.train.stated import StatedAnswers, Tokens

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer

LONGEST = 256  # tokens: longer ones hardly ever repeat, and their logits are large
#: Where what has failed holds less of the policy than this, draws that leave it out are plain draws, one at a time.
WORTH = 1e-3
_LEFT = 1e-30  # of a way that was tried altogether: no row must be left without a token, whatever rounding does
_LIKELY = 64  # next tokens of a stated answer that are asked whether they change it; others count as if they did not


class Stated(NamedTuple):
    """Where a failed completion has stated its answer.

    Attributes:
        end: Tokens after which it is stated.
        others: Next tokens that change it, with their probabilities.
    """

    end: int
    others: dict[int, float]


class Node:
    """Where some failed completions agree so far.

    Attributes:
        chance: Probability of the token that leads here.
        tried: Probability of going on to a failed completion from here.
        children: By next token.
        stated: Failed completions that have stated their answer here.
        passed: Failed completions that go through here to another answer, or to none.
        others: Next tokens that change the answer stated here, with their probabilities.
    """

    __slots__ = ("chance", "children", "others", "passed", "stated", "tried")

    def __init__(self, chance: float) -> None:
        self.chance, self.tried = chance, 1.0
        self.children: dict[int, Node] = {}
        self.stated = self.passed = 0
        self.others: dict[int, float] = {}

    @property
    def closed(self) -> bool:
        """Whether what is stated here is the answer, as most failures through here say; "12" of "12 plus 7" is not."""
        return self.stated > self.passed

    def left(self) -> dict[int, float]:
        """Share not yet tried of each next token; without a closed node's other tokens, which have none."""
        known = {token: 1 - child.tried for token, child in self.children.items()}
        return {token: known.get(token, 1.0) for token in self.others} if self.closed else known

    def count(self) -> None:
        """Set ``tried`` from the nodes below."""
        if self.closed:
            left = self.left()
            self.tried = 1 - min(1.0, sum(chance * left[token] for token, chance in self.others.items()))
        elif self.children:
            self.tried = min(1.0, sum(child.chance * child.tried for child in self.children.values()))


def tree_of(
    completions: Sequence[Tokens], logps: Sequence[Sequence[float]], stated: Sequence[Stated | None] | None = None
) -> Node:
    """The tree of failed ``completions``.

    Args:
        completions: Token ids, with the end token where there is one; each once.
        logps: Log-probabilities (nats) of these tokens in the draws to come.
        stated: Where each states its answer; None where it is not known, or where nothing follows.
    """
    root = Node(1.0)
    nodes = [root]
    for tokens, steps, where in zip(completions, logps, stated or [None] * len(completions), strict=True):
        node, end = root, where.end if where else len(tokens)
        for depth, (token, logp) in enumerate(zip(tokens, steps, strict=True), start=1):
            if token not in node.children:
                node.children[token] = Node(math.exp(logp))
                nodes.append(node.children[token])
            node = node.children[token]
            node.passed += depth < end
            if where and depth == end:
                node.stated, node.others = node.stated + 1, where.others
    for node in reversed(nodes):  # children come after their parents
        node.count()
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
            if node is not None and (node.children or node.closed):
                left = node.left()
                shares = torch.full_like(scores[row], _LEFT if node.closed else 1.0)
                shares[list(left)] = torch.tensor(list(left.values()), dtype=scores.dtype, device=scores.device)
                scores[row] += self.temperature * shares.clamp(min=_LEFT).log()
        return scores


def can_leave_out(trainer: DoPRTrainer, lengths: Sequence[int]) -> bool:
    """Whether draws can leave out failed completions of these ``lengths``, in tokens.

    One of them must be short enough to be kept (0 is a truncated one that is masked out), and generation must take a logits
    processor for single rows, which vLLM and continuous batching do not.
    """
    engine = trainer.use_vllm or trainer.use_transformers_continuous_batching or trainer.rollout_func or trainer.tools
    return not engine and any(0 < length <= LONGEST for length in lengths)


class Trees:
    """Builds the trees of a round; what the policy says of a completion is asked once, as it does not change before the update.

    Args:
        trainer: For its policy and temperature.
        answers: Reads what completions state, so that answers are left out; None leaves out completions.
    """

    def __init__(self, trainer: DoPRTrainer, answers: StatedAnswers | None = None) -> None:
        self._trainer, self._answers = trainer, answers
        self._known: dict[tuple[bool, Tokens, Tokens], tuple[list[float], Stated | None]] = {}

    def of(self, prompts: dict[int, Tokens], failed: dict[int, list[Tokens]], base: bool = False) -> dict[int, Node]:
        """A tree per prompt that has failed completions short enough to be kept; at most one forward pass per prompt.

        With ``base`` for draws of the policy as it was before training.
        """
        trees = {}
        for key, completions in failed.items():
            some = sorted({tokens for tokens in completions if 0 < len(tokens) <= LONGEST})
            if some:
                prompt = prompts[key]
                self._ask(prompt, [tokens for tokens in some if (base, prompt, tokens) not in self._known], base)
                steps, stated = zip(*(self._known[base, prompt, tokens] for tokens in some), strict=True)
                trees[key] = tree_of(some, steps, stated)
        return trees

    def _ask(self, prompt: Tokens, completions: Sequence[Tokens], base: bool) -> None:
        if not completions:
            return
        trainer = self._trainer
        with torch.no_grad(), trainer.base_policy.active() if base else nullcontext():
            logits = completion_logits(trainer.model, [(prompt, tokens) for tokens in completions], trainer.pad_id)
        for i, tokens in enumerate(completions):
            logps = torch.log_softmax(logits[i, : len(tokens)].float() / trainer.temperature, dim=-1)
            steps = logps.gather(1, torch.tensor(tokens, device=logps.device)[:, None])[:, 0].tolist()
            self._known[base, prompt, tokens] = steps, _stated(tokens, logps, self._answers) if self._answers else None


def _stated(tokens: Tokens, logps: torch.Tensor, answers: StatedAnswers) -> Stated | None:
    """Where ``tokens`` state their answer, if something follows; ``logps`` (tokens, vocabulary) predict each of them."""
    end = answers.end(tokens)
    if end is None or end == len(tokens):
        return None
    likely = logps[end].topk(min(_LIKELY, logps.shape[1]))
    chances = dict(zip(likely.indices.tolist(), likely.values.exp().tolist(), strict=True))
    return Stated(end, {token: chances[token] for token in answers.changed_by(tokens[:end], list(chances))})


@contextmanager
def untried_only(trainer: DoPRTrainer, trees: Sequence[Node | None], base: bool = False) -> Iterator[None]:
    """Generate without the completions in ``trees``, one per row of the batch; with ``base`` from the policy before training."""
    if not any(trees) and not base:
        yield
        return
    model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    replaced = vars(model).get("generate")  # by somebody else, on this model alone
    processors = LogitsProcessorList([WithoutReplacement(trees, trainer.temperature)])
    generate = functools.partial(model.generate, logits_processor=processors)

    def from_base(*args: Any, **kwargs: Any) -> Any:
        with trainer.base_policy.active():  # for the draws alone: TRL scores them with the policy as it is
            return generate(*args, **kwargs)

    model.generate = from_base if base else generate
    try:
        yield
    finally:
        if replaced is None:
            del model.generate  # the class has one
        else:
            model.generate = replaced
