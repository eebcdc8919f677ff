"""A random two-layer policy with a byte tokenizer, and a trainer around it: real TRL, a second per run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dopr import DoPRConfig, DoPRTrainer
from dopr.runlog import read_events


@cache
def byte_tokenizer() -> PreTrainedTokenizerFast:
    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {"<pad>": 256, "<eos>": 257}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def random_policy(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            pad_token_id=256, eos_token_id=257, bos_token_id=257, tie_word_embeddings=True,
        )
    )  # fmt: skip


def pool(n: int = 40) -> Dataset:
    return Dataset.from_list([{"prompt": f"q{i}: ", "answer": "a", "id": f"p{i}"} for i in range(n)])


def even_first_byte(completions: list[str], **_: Any) -> list[float]:
    """Right when the first character has an even code: about half of a random policy's completions."""
    return [float(bool(c) and ord(c[0]) % 2 == 0) for c in completions]


def trainer(
    tmp_path: Path,
    *,
    reward: Any = even_first_byte,
    data: Dataset | None = None,
    policy: Any = None,
    cls: type[DoPRTrainer] = DoPRTrainer,
    processor: Any = None,
    extra: dict[str, Any] | None = None,
    **settings: Any,
) -> DoPRTrainer:
    """A ``DoPRTrainer`` on the random policy; ``settings`` go to ``DoPRConfig``, ``extra`` to the trainer."""
    settings = {
        "output_dir": str(tmp_path / "out"), "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "report_to": [], "disable_tqdm": True, "save_strategy": "no", "max_completion_length": 6, "max_steps": 6,
        "learning_rate": 1e-3, "num_generations": 4, "per_device_train_batch_size": 4, "dopr_candidates": 8,
        "logging_steps": 1,
    } | settings  # fmt: skip
    if settings.get("dopr_strategy", "dopr") == "dopr":
        # Rounds are easier to count in whole groups and without replay updates; their tests ask for them.
        settings = {"dopr_chunk": settings["num_generations"], "dopr_replay_updates": 0} | settings
    policy = policy or random_policy()
    if settings.get("beta"):  # the reference model is loaded again, from disk
        policy.save_pretrained(tmp_path / "policy")
        policy = str(tmp_path / "policy")
    return cls(
        model=policy, reward_funcs=reward, args=DoPRConfig(**settings),
        train_dataset=data or pool(), processing_class=processor or byte_tokenizer(), **(extra or {}),
    )  # fmt: skip


def parameters(t: Any) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in t.model.parameters())).hexdigest()


def rounds(folder: Path) -> list[tuple[Any, ...]]:
    """What was chosen, earned and measured in each round; empty if the run began none."""
    events = read_events(folder / "out") if (folder / "out" / "events.jsonl").exists() else []
    return [
        (e["round"], e["step"], e["replayed"], [(p["id"], p["rewards"], p["entropy"]) for p in e["picks"]])
        for e in events
        if e["kind"] == "round"
    ]


def two_processes(folder: Path, script: str, *arguments: str) -> list[Any]:
    """Run ``script`` under torchrun with (tests, ``folder``, ``arguments``); what each rank wrote to rankN.json."""
    (folder / "run.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(folder / "run.py"), str(Path(__file__).parent), str(folder), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
