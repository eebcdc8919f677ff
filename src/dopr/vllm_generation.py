"""Completions from vLLM: the same prompts, token for token, and the same sampling as the transformers backend.

It needs a GPU as a rule and the package vllm, which dopr does not install. Written against vLLM's offline ``LLM`` interface;
it has not been run on this project's machines, which have no GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dopr.errors import ConfigError, ModelError
from dopr.generation import Completion, Prompt, Sampling, check_lengths, tokenize

#: Completions per chunk: enough to keep continuous batching busy.
CHUNK = 4096


class VLLMBackend:
    """A model in vLLM, callable as :data:`dopr.evaluate_set.Generate`.

    Args:
        path: model directory or hub name.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        max_new_tokens: longest completion asked for; with the longest prompt it must fit the context.

    Raises:
        ModelError: vLLM is missing or cannot load the model.
        ConfigError: the model is an adapter.
    """

    def __init__(self, path: str, *, dtype: str = "auto", seed: int = 0) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ModelError(
                "--backend vllm needs vllm, which is not installed. Run: pip install vllm, or use transformers."
            )
        if (Path(path) / "adapter_config.json").exists():
            raise ConfigError(
                f"{path} is a LoRA adapter. Merge it into its base model first (merge_and_unload, save_pretrained), or evaluate "
                "it with --backend transformers."
            )
        from vllm import LLM

        try:
            self.llm: Any = LLM(model=path, dtype=dtype, seed=seed)
        except Exception as error:
            raise ModelError(f"vLLM cannot load {path}: {type(error).__name__}: {str(error)[:300]}") from error
        self.tokenizer: Any = self.llm.get_tokenizer()

    @property
    def context(self) -> int | None:
        """Longest sequence that the engine takes, in tokens."""
        length = getattr(getattr(self.llm.llm_engine, "model_config", None), "max_model_len", None)
        return None if length is None else int(length)

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions of every prompt.

        Raises:
            DataError: a prompt is empty or leaves no room for its completion.
        """
        from vllm import SamplingParams

        ids = tokenize(self.tokenizer, prompts, sampling.chat_options)
        check_lengths(self.context, ids, sampling.max_new_tokens)
        # Neutral values for all that a checkpoint's own generation settings might ask for, as in the other backend.
        parameters = SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            min_p=0.0,
            repetition_penalty=1.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            max_tokens=sampling.max_new_tokens,
            seed=None if sampling.greedy else sampling.seed,
        )
        outputs = self.llm.generate([{"prompt_token_ids": list(tokens)} for tokens in ids], parameters, use_tqdm=False)
        return [
            [Completion(o.text, tuple(o.token_ids), o.finish_reason == "length") for o in output.outputs]
            for output in outputs
        ]
