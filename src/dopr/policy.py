"""Load a policy: model and tokenizer from a local directory, a PEFT adapter, or the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dopr.errors import ConfigError, ModelError, suggest

DTYPES = ("auto", "float32", "bfloat16", "float16")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_policy(
    path: str | Path, *, dtype: str = "auto", device: str | None = None, trainable: bool = False
) -> tuple[Any, Any]:
    """Load a causal language model for generation or training, and its tokenizer.

    Code that a checkpoint brings along is never run (``trust_remote_code`` stays off).

    Args:
        path: a directory with config.json, weights and tokenizer; a PEFT adapter directory (adapter_config.json), whose
            base model is loaded too; or an ``org/name`` on the Hub.
        trainable: whether an adapter's own weights are to be trained further; they are frozen otherwise.
        dtype: one of :data:`DTYPES`; ``auto`` is float32 on a CPU and the checkpoint's own elsewhere.
        device: such as ``cpu`` or ``cuda:1``; None takes the first GPU, if there is one.

    Returns:
        The model, on its device and in evaluation mode, and a tokenizer that has a pad token.

    Raises:
        ModelError: nothing usable there; the message says what there is.
        ConfigError: a dtype or device that does not exist.
    """
    import torch

    if dtype not in DTYPES:
        raise ConfigError(f"There is no dtype {dtype!r}. {suggest(dtype, DTYPES)}")
    place = _device(device)
    if dtype == "auto" and place.type == "cpu":
        dtype = "float32"
    name = str(path)
    directory = Path(name).expanduser()
    if directory.exists():
        name = str(directory)
        adapter = _local_adapter(directory)
        model = _load_adapter(directory, adapter, dtype, trainable) if adapter is not None else _load_model(name, dtype)
        tokenizer = _load_tokenizer(name, fallback=None if adapter is None else adapter)
    elif _HUB_NAME.fullmatch(name):
        model = _load_model(name, dtype)
        tokenizer = _load_tokenizer(name, fallback=None)
    else:
        raise ModelError(
            f"There is no model at {name!r}: no such directory, and it is not a Hub name of the form org/name. "
            "Give the directory that holds config.json and the weights, or a Hub name such as Qwen/Qwen3-0.6B."
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"The tokenizer of {name!r} has neither a pad nor an end-of-text token, so no completion "
                "could ever end. Set eos_token in its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    try:
        model.to(place)
    except (RuntimeError, torch.AcceleratorError) as error:
        raise ModelError(
            f"The model {name!r} does not fit on {place}: {_first_line(error)} "
            "Use a smaller dtype, a smaller model or another device."
        ) from error
    return model.eval(), tokenizer


def _device(device: str | None) -> Any:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"The device {device!r} cannot be used here: {_first_line(error)} "
            "Use cpu, or cuda where this torch sees a GPU."
        ) from error
    return place


def _local_adapter(directory: Path) -> str | None:
    """Base model's name if this is a PEFT adapter, None if it is a whole model; ModelError if it is neither."""
    if not directory.is_dir():
        raise ModelError(
            f"{str(directory)!r} is a file. Give the directory of the model: it holds config.json, the "
            "weights (.safetensors) and the tokenizer."
        )
    held = sorted(p.name + "/" * p.is_dir() for p in directory.iterdir())
    if "adapter_config.json" in held:
        try:
            base = json.loads((directory / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{str(directory)!r} is a PEFT adapter whose adapter_config.json does not name its base "
                "model (base_model_name_or_path). Save the adapter again."
            ) from error
        return str(base)
    if "config.json" in held:
        return None
    inner = sorted(
        (
            p.parent
            for pattern in ("config.json", "adapter_config.json")
            for depth in ("*/", "*/*/")
            for p in directory.glob(depth + pattern)
        ),
        key=lambda p: p.stat().st_mtime,
    )
    contents = ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
    hint = f"Did you mean {str(inner[-1])!r}?" if inner else "Give the directory that a model was saved to."
    raise ModelError(
        f"{str(directory)!r} is not a model: it has no config.json. It holds {contents or 'nothing'}. {hint}"
    )


def _load_model(name: str, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # a broken file can make a loader raise anything; the cause stays attached
        raise _unloadable(name, error) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(
            f"The weights of {name!r} are not those of a whole causal language model: {len(missing)} "
            f"tensors are missing, such as {missing[0]}. They would be random. Was the save interrupted, "
            "or is this a model of another kind (an encoder, a classifier)?"
        )
    return model


def _load_adapter(directory: Path, base: str, dtype: str, trainable: bool) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError(
            f"{str(directory)!r} is a PEFT adapter, and peft is not installed. Run: pip install 'dopr[lora]'"
        ) from error
    try:
        model = _load_model(base, dtype)
    except ModelError as error:
        raise ModelError(
            f"{str(directory)!r} is a PEFT adapter for the base model {base!r}, which cannot be loaded. {error}"
        ) from error
    try:
        return PeftModel.from_pretrained(model, str(directory), is_trainable=trainable)
    except Exception as error:  # as for a whole model
        raise _unloadable(str(directory), error) from error


def _load_tokenizer(name: str, fallback: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # as for the model
        if fallback is not None:
            return _load_tokenizer(fallback, None)
        raise ModelError(
            f"The model {name!r} has no usable tokenizer: {_first_line(error)} Save the tokenizer beside "
            "the model (tokenizer.save_pretrained)."
        ) from error


def _unloadable(name: str, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(
            f"The model {name!r} needs code of its own to run, and dopr never runs code from a "
            "checkpoint. Use a model whose architecture transformers knows."
        )
    if Path(name).exists():
        return ModelError(
            f"The model in {name!r} cannot be loaded: {_first_line(error)} Save or download it again, and "
            "check that this version of transformers knows its architecture."
        )
    return ModelError(
        f"There is no directory {name!r}, and the Hugging Face Hub did not give a model of that name: "
        f"{_first_line(error)} Check the name and the connection (a gated model needs `hf auth login`), "
        "or give a local directory."
    )


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if text.endswith((".", "!", "?")) else text + "."
