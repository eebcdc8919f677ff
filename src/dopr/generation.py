"""Completions from a transformers causal language model: batched, left-padded, seeded, and without side effects.

It is called on the live policy in the middle of training, so whatever it touches (the global random state, the training
mode of each module) is put back as it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dopr.errors import ConfigError, DataError, ModelError

Prompt = str | list[dict[str, Any]]
Progress = Callable[[int, int], None]
"""Called with (rollouts done, rollouts in all) after every batch."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are drawn from the policy."""

    n: int = 1
    """Completions per prompt."""
    temperature: float = 0.0
    """0 is greedy decoding; above 0, samples are drawn from the softmax of logits / temperature."""
    top_p: float = 1.0
    """Nucleus: the smallest set of tokens with at least this probability. 1 keeps all."""
    top_k: int | None = None
    """Only the k likeliest tokens; None keeps all."""
    max_new_tokens: int = 512
    """Completion length limit, in tokens."""
    seed: int = 0
    """Seed of the draws. The same seed, prompts and batch size give the same completions on the same machine."""
    batch_size: int = 64
    """Completions generated at once; lower it where memory is short."""
    chat_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, such as ``enable_thinking``."""

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0.0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 (greedy) or a positive number.")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}; it must be at least 1, or None to keep every token.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more.")
        if self.n > 1 and self.greedy:
            raise ConfigError(
                f"{self.n} completions per prompt at temperature 0 would all be the same. "
                "Set n to 1, or give a temperature above 0 (0.6 to 1.0 is usual)."
            )

    @property
    def greedy(self) -> bool:
        """Whether decoding is greedy."""
        return self.temperature == 0.0


def redrawn(sampling: Sampling) -> Sampling:
    """The same with other draws: for a policy that was stopped because the first ones were high."""
    return replace(sampling, seed=sampling.seed + 1)


@dataclass(frozen=True, slots=True)
class Completion:
    """One rollout's text and tokens; the stop token is among the tokens, and not in the text."""

    text: str
    token_ids: tuple[int, ...]
    truncated: bool
    """True if the length limit came before a stop token."""

    @property
    def n_tokens(self) -> int:
        """Generated tokens, the stop token included."""
        return len(self.token_ids)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Roll out every prompt ``sampling.n`` times.

    Only temperature, top-p and top-k shape the distribution: penalties and beams that a checkpoint's own generation
    settings ask for are off, as they are in training, so that what is measured is the policy itself.

    Args:
        model: a transformers causal language model (PEFT-wrapped too), already on its device.
        tokenizer: its tokenizer, with a pad token.
        prompts: text, or lists of chat messages, which go through the tokenizer's chat template.
        sampling: how to draw.
        progress: told after every batch.

    Returns:
        One list of n completions per prompt, in the order of the prompts.

    Raises:
        ModelError: messages given and the tokenizer has no chat template.
        DataError: a prompt that gives no token, or that leaves no room for the completion in the model's context.
    """
    import torch

    if not prompts:
        return []
    prompt_ids = tokenize(tokenizer, prompts, sampling.chat_options)
    check_lengths(context_of(model), prompt_ids, sampling.max_new_tokens)
    stops = _stop_tokens(model, tokenizer)
    config = _generation_config(sampling, tokenizer, stops)
    device = next(model.parameters()).device
    # Neighbours in length waste little padding; the longest come first, so that too little memory shows at once.
    rows = [i for i in sorted(range(len(prompts)), key=lambda i: -len(prompt_ids[i])) for _ in range(sampling.n)]
    completions: list[list[Completion]] = [[] for _ in prompts]
    with _untouched(model), _seeded(model, sampling.seed), torch.no_grad():
        for start in range(0, len(rows), sampling.batch_size):
            batch = rows[start : start + sampling.batch_size]
            width = max(len(prompt_ids[i]) for i in batch)
            ids = torch.full((len(batch), width), config.pad_token_id, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, width - len(prompt_ids[i]) :] = torch.tensor(prompt_ids[i])
                mask[row, width - len(prompt_ids[i]) :] = 1
            out = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
            for i, completion in zip(batch, _completions(tokenizer, out[:, width:].tolist(), stops), strict=True):
                completions[i].append(completion)
            if progress is not None:
                progress(start + len(batch), len(rows))
    return completions


def tokenize(
    tokenizer: Any, prompts: Sequence[Prompt], chat_options: Mapping[str, Any] | None = None
) -> list[list[int]]:
    """Token ids of each prompt, messages through the chat template with its ``chat_options``.

    Raises:
        ModelError: messages given and the tokenizer has no chat template.
    """
    chats = [i for i, prompt in enumerate(prompts) if not isinstance(prompt, str)]
    if chats and not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "The prompts are chat messages, and this model's tokenizer has no chat template. "
            "Base models often have none: give the prompts as plain text, or use an instruction-tuned model."
        )
    texts = [i for i, prompt in enumerate(prompts) if isinstance(prompt, str)]
    ids: list[list[int]] = [[] for _ in prompts]
    if texts:
        for i, tokens in zip(texts, tokenizer([prompts[i] for i in texts])["input_ids"], strict=True):
            ids[i] = list(tokens)
    if chats:
        encoded = tokenizer.apply_chat_template(
            [prompts[i] for i in chats],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **(chat_options or {}),
        )
        for i, tokens in zip(chats, encoded["input_ids"], strict=True):
            ids[i] = list(tokens)
    return ids


def context_of(model: Any) -> int | None:
    """Most tokens of prompt and completion together; ``None`` where the model does not say."""
    length = getattr(model.config, "max_position_embeddings", None)
    return None if length is None else int(length)


def check_lengths(
    context: int | None, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int, names: Sequence[str] | None = None
) -> None:
    """Refuse prompts that are empty or leave no room for the completion in a ``context`` of so many tokens.

    Raises:
        DataError: which prompt, by its name in ``names`` or its position, and why.
    """
    for position, tokens in enumerate(prompt_ids):
        name = position + 1 if names is None else repr(names[position])
        if not tokens:
            raise DataError(f"Prompt {name} is empty: it has no token to start from. Remove it, or give it text.")
        if context is not None and len(tokens) + max_new_tokens > context:
            raise DataError(
                f"Prompt {name} has {len(tokens):,} tokens; with up to {max_new_tokens:,} new ones that is more "
                f"than the model's context of {context:,}. Lower the completion limit, or remove the longest prompts."
            )


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a completion: the checkpoint's (chat models have several) and the tokenizer's own."""
    from_model = model.generation_config.eos_token_id
    if from_model is None:
        from_model = []
    stops = {int(t) for t in (from_model if isinstance(from_model, (list, tuple)) else [from_model])}
    if tokenizer.eos_token_id is not None:
        stops.add(int(tokenizer.eos_token_id))
    return sorted(stops)


#: Values that switch off what a checkpoint's own generation settings may ask for: transformers fills whatever is None from there.
NEUTRAL: Mapping[str, float] = {
    "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1,
}  # fmt: skip


def _generation_config(sampling: Sampling, tokenizer: Any, stops: list[int]) -> Any:
    from transformers import GenerationConfig

    # In greedy decoding these values are also those that draw no warning.
    drawing = (
        {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
        if sampling.greedy
        else {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or 0,
            "min_p": 0.0,
        }
    )
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        **NEUTRAL,
        num_return_sequences=1,
        use_cache=True,  # training switches it off in the model's own settings
        return_dict_in_generate=False,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stops or [0])[0],
        eos_token_id=stops or None,
        **drawing,
    )


def _completions(tokenizer: Any, rows: list[list[int]], stops: list[int]) -> Iterator[Completion]:
    kept: list[tuple[list[int], bool]] = []
    for row in rows:
        end = next((k for k, token in enumerate(row) if token in stops), None)
        kept.append((row, True) if end is None else (row[: end + 1], False))
    texts = tokenizer.batch_decode([row for row, _ in kept], skip_special_tokens=True)
    for (row, truncated), text in zip(kept, texts, strict=True):
        yield Completion(text, tuple(row), truncated)


@contextmanager
def _untouched(model: Any) -> Iterator[None]:
    """Evaluation mode inside, and each module's own mode again afterwards (some may be frozen in evaluation mode)."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _seeded(model: Any, seed: int) -> Iterator[None]:
    """Draws from ``seed`` inside; the global random states of the CPU and the model's devices again afterwards."""
    import torch

    devices = {p.device for p in model.parameters() if p.device.type != "cpu"}
    kinds = {device.type for device in devices}
    kind = kinds.pop() if kinds else "cuda"
    indices = sorted(device.index or 0 for device in devices)
    with torch.random.fork_rng(devices=indices, device_type=kind):
        torch.default_generator.manual_seed(seed)
        for index in indices:
            module = torch.get_device_module(kind)
            if kind == "mps":
                module.manual_seed(seed)
            else:
                with module.device(index):
                    module.manual_seed(seed)
        yield
