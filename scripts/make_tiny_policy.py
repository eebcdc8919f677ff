"""Make the packaged tiny policy from nothing: tokenizer, network, weights, measured base success.

    python scripts/make_tiny_policy.py --out src/dopr/assets/tiny --force
    python scripts/make_tiny_policy.py --out src/dopr/assets/tiny --measure    no training: worlds added since, same checkpoint

A small Llama learns the *designed base policy* of every packaged world (see dopr/tasks/worlds.py) and, so that a
newcomer's own file has something to start from, single-digit arithmetic in words at a success rate of .4. The loss is
the cross-entropy of completion tokens against the exact next-token probabilities of the design; sampled labels would
need far more steps to get a 1 % strategy right. Worlds that only recombine skills are measured, not trained on. Deterministic by --seed on one machine and library version.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from dopr.tasks.world_text import Skill
from dopr.tasks.worlds import WORLD_NAMES, load_world, world_info, world_skills

PAD, EOS = "<|pad|>", "<|end|>"
GROUP_SIZE = 8
# How often a family of prompts is drawn, and the phrasings of the arithmetic questions.
FAMILY_SHARES = {"shared-skill": 0.22, "latent-strategy": 0.30, "mixed": 0.36, "arithmetic": 0.12}
TRAINED_ON = tuple(name for name in WORLD_NAMES if name in FAMILY_SHARES)
RECOMBINED = tuple(name for name in WORLD_NAMES if name not in FAMILY_SHARES)  # the same skills in other proportions
QUESTIONS = ("What is {a} {op} {b}?", "{a} {op} {b} =", "{a}{op}{b}=", "Q: {a} {op} {b}\nA:")
ARITHMETIC_RATE = 0.4
NEAR_MISSES = {-1: 0.35, 1: 0.35, -2: 0.15, 2: 0.15}


def make_tokenizer(out: Path) -> Any:
    """Byte-level tokenizer without merges: one token per byte, so any text can be encoded and decoded back."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([PAD, EOS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, EOS])
    tokenizer.save(str(out / "tokenizer.json"))
    # Written by hand: the class name and the inline template are what both transformers 4 and 5 read.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": EOS,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 256,
        "clean_up_tokenization_spaces": False,
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return AutoTokenizer.from_pretrained(out)


def make_model(pad: int, eos: int, vocabulary: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        pad_token_id=pad,
        eos_token_id=eos,
        bos_token_id=None,
        attention_dropout=0.0,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=12, pad_token_id=pad, eos_token_id=eos
    )
    return model


def arithmetic_prompts() -> list[tuple[str, dict[str, float]]]:
    """Every question on two digits with its designed completions."""
    prompts = []
    for question in QUESTIONS:
        for op in "+-":
            for a in range(10):
                for b in range(10):
                    answer = a + b if op == "+" else a - b
                    near = {f" {answer + d}": (1 - ARITHMETIC_RATE) * p for d, p in NEAR_MISSES.items()}
                    prompts.append((question.format(a=a, b=b, op=op), {f" {answer}": ARITHMETIC_RATE} | near))
    return prompts


def next_byte_targets(completions: dict[str, float], chosen: str) -> list[dict[int, float]]:
    """Exact distribution of the next byte (0 is the end) after every prefix of ``chosen``."""
    ends = {text.encode() + b"\x00": p for text, p in completions.items()}
    target, prefix = [], b""
    for byte in chosen.encode() + b"\x00":
        mass: dict[int, float] = {}
        for text, p in ends.items():
            if text.startswith(prefix):
                mass[text[len(prefix)]] = mass.get(text[len(prefix)], 0.0) + p
        total = sum(mass.values())
        target.append({b: p / total for b, p in mass.items()})
        prefix += bytes([byte])
    return target


class Corpus:
    """Draws training examples; held-out arguments never appear.

    Args:
        shares: How often a family of prompts is drawn: those of ``skills``, and ``arithmetic``.
        skills: The skills of each family.
    """

    def __init__(
        self, tokenizer: Any, rng: np.random.Generator, shares: dict[str, float], skills: dict[str, Sequence[Skill]]
    ) -> None:
        self.rng = rng
        self.pad, self.vocabulary = tokenizer.pad_token_id, len(tokenizer)
        # Token id of every ASCII byte (all training text is ASCII); byte 0 stands for the end.
        self.byte_ids = np.array([tokenizer.eos_token_id] + [tokenizer.encode(chr(b))[0] for b in range(1, 128)])
        self.families, self.shares = list(shares), list(shares.values())
        self.skills = {name: [(skill, skill.strata("train")) for skill in some] for name, some in skills.items()}
        self.arithmetic = arithmetic_prompts()

    def example(self) -> tuple[str, str, dict[str, float]]:
        family = self.families[self.rng.choice(len(self.families), p=self.shares)]
        if family == "arithmetic":
            prompt, completions = self.arithmetic[self.rng.integers(len(self.arithmetic))]
        else:
            skill, strata = self.skills[family][self.rng.integers(len(self.skills[family]))]
            stratum = strata[self.rng.integers(len(strata))]
            _, prompt = stratum[self.rng.integers(len(stratum))]
            completions = skill.completions(prompt)
        # Rare beginnings are drawn more often than they are likely, so that they are carried on as well as others are:
        # the targets are conditional, so this leaves the learned distribution alone.
        begins: Counter[str] = Counter()
        for text, p in completions.items():
            begins[text[0]] += p
        weights = np.array([p / math.sqrt(begins[text[0]]) for text, p in completions.items()])
        chosen = list(completions)[self.rng.choice(len(weights), p=weights / weights.sum())]
        return prompt, chosen, completions

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids (B, L), and for the M completion positions their flat index and target probabilities (M, V)."""
        examples = [self.example() for _ in range(size)]
        rows = [prompt.encode() + chosen.encode() + b"\x00" for prompt, chosen, _ in examples]
        length = max(map(len, rows)) - 1  # the end token predicts nothing
        ids = np.full((size, length), self.pad)
        where: list[int] = []
        entries: list[tuple[int, int, float]] = []
        for i, (prompt, chosen, completions) in enumerate(examples):
            ids[i, : len(rows[i]) - 1] = self.byte_ids[list(rows[i][:-1])]
            for j, target in enumerate(next_byte_targets(completions, chosen)):
                entries.extend((len(where), int(self.byte_ids[byte]), p) for byte, p in target.items())
                where.append(i * length + len(prompt) - 1 + j)
        targets = torch.zeros(len(where), self.vocabulary)
        m, v, p = zip(*entries, strict=True)
        targets[list(m), list(v)] = torch.tensor(p)
        return torch.from_numpy(ids), torch.tensor(where), targets


def train(model: LlamaForCausalLM, corpus: Corpus, *, steps: int, batch: int, rate: float) -> None:
    """Muon for the layers' matrices (3x fewer steps than AdamW here), AdamW for the rest; cosine decay to zero."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    warmup = max(1, steps // 20)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: min(1.0, (s + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * s / steps))
        )
        for optimizer in optimizers
    ]
    started, running = time.monotonic(), 0.0
    model.train()
    for step in range(steps):
        ids, where, targets = corpus.batch(batch)
        hidden = model.model(input_ids=ids).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1)[where])
        entropy = -torch.special.entr(targets).sum(-1)
        loss = (-(targets * logits.log_softmax(-1)).sum(-1) + entropy).mean()  # KL(design || policy), nats per token
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            print(f"step {step + 1:5d}/{steps}  KL {running:.5f}  {time.monotonic() - started:5.0f} s", flush=True)


@torch.no_grad()
def sample(model: LlamaForCausalLM, tokenizer: Any, prompts: list[str], samples: int) -> list[list[str]]:
    """``samples`` completions of each prompt at temperature 1, prompts of one length together."""
    texts: list[list[str]] = [[] for _ in prompts]
    for length in sorted({len(p) for p in prompts}):
        for chunk in _chunks([i for i, p in enumerate(prompts) if len(p) == length], 1024 // samples):
            inputs = tokenizer([prompts[i] for i in chunk], return_tensors="pt")
            output = model.generate(**inputs, num_return_sequences=samples)[:, inputs["input_ids"].shape[1] :]
            decoded = tokenizer.batch_decode(output, skip_special_tokens=True)
            for j, i in enumerate(chunk):
                texts[i] = decoded[j * samples : (j + 1) * samples]
    return texts


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def measure(model: LlamaForCausalLM, tokenizer: Any, names: Sequence[str], *, samples: int) -> dict[str, Any]:
    """Success on held-out prompts: per world the shares of groups of 8, per skill the rate with a 95 % interval."""
    model.eval()
    report: dict[str, Any] = {}
    for name in names:
        problems = load_world(name, split="test")
        texts = sample(model, tokenizer, [p.prompt for p in problems], samples)
        right = np.array(
            [[t.rsplit("=", 1)[-1] == p.answer for t in row] for p, row in zip(problems, texts, strict=True)]
        )
        rates = right.mean(1)
        groups = right.reshape(len(problems), -1, GROUP_SIZE).sum(-1)
        skills = {}
        for skill in world_info(name).skills:
            mine = right[[p.extra["skill"] == skill.name for p in problems]]
            low, high = wilson(int(mine.sum()), mine.size)
            skills[skill.name] = {
                "rate": round(float(mine.mean()), 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "n": mine.size,
                "design": skill.base_success,
            }
        report[name] = {
            "mean_success": round(float(rates.mean()), 4),
            "groups_of_8": {
                "informative": round(float(((groups > 0) & (groups < GROUP_SIZE)).mean()), 4),
                "all_wrong": round(float((groups == 0).mean()), 4),
                "all_right": round(float((groups == GROUP_SIZE).mean()), 4),
            },
            "skills": skills,
        }
    return report


def measure_arithmetic(model: LlamaForCausalLM, tokenizer: Any, *, samples: int) -> dict[str, Any]:
    """How often the likeliest designed answer is given."""
    prompts = arithmetic_prompts()[:200]
    texts = sample(model, tokenizer, [prompt for prompt, _ in prompts], samples)
    best = [max(completions, key=lambda text: completions[text]) for _, completions in prompts]
    right = np.array([[t == b for t in row] for b, row in zip(best, texts, strict=True)])
    return {"mean_success": round(float(right.mean()), 4)}


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    p, scale = successes / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def print_report(report: dict[str, Any]) -> None:
    for name, facts in report.items():
        print(f"\n{name}: mean success {facts['mean_success']:.3f}", facts.get("groups_of_8", ""))
        for skill, r in facts.get("skills", {}).items():
            print(f"  {skill}  design {r['design']:.3f}  measured {r['rate']:.4f} [{r['low']:.4f}, {r['high']:.4f}]")


def readme(made: dict[str, Any], report: dict[str, Any]) -> str:
    lines = [
        "# The packaged tiny policy",
        "",
        "A three-layer Llama (hidden 128, four heads, float32) with a byte-level tokenizer, trained from nothing to be",
        "the *untrained* base policy of the packaged worlds: right now and then, in a known way. Nothing was distilled",
        "and no outside data was used. Made by",
        "",
        f"    {made['command']} --out DIR",
        "",
        f"with torch {made['torch']}. Measured at temperature 1 on held-out prompts, {made['samples']} completions each",
        "(per skill, with intervals: `worlds.json`):",
        "",
        "| world | mean success | groups of 8: mixed | all wrong | all right |",
        "|---|---|---|---|---|",
    ]
    for name in WORLD_NAMES:
        groups = report[name]["groups_of_8"]
        shares = " | ".join(f"{groups[key]:.2f}" for key in ("informative", "all_wrong", "all_right"))
        lines.append(f"| {name} | {report[name]['mean_success']:.2f} | {shares} |")
    rate = report["arithmetic"]["mean_success"]
    lines += [
        "",
        f"Trained on: {', '.join(TRAINED_ON)}. The others put the same skills together in other proportions; they were only",
        "measured (`--measure`).",
        "",
        f"It also answers `What is 3 + 4?` and `What is 7 - 5?` (single digits), right {rate:.0%} of the time.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write the checkpoint to")
    parser.add_argument("--force", action="store_true", help="overwrite a checkpoint that is already there")
    parser.add_argument("--measure", action="store_true", help="train nothing: measure what worlds.json there lacks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--samples", type=int, default=128, help="completions per held-out prompt in the measurement")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if (args.out / "config.json").exists() and not args.force and not args.measure:
        sys.exit(f"{args.out} already holds a checkpoint. Choose another --out, or add --force to overwrite it.")
    if args.measure:
        measure_only(args)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)

    tokenizer = make_tokenizer(args.out)
    model = make_model(tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    skills = {name: world_skills(name) for name in TRAINED_ON}
    corpus = Corpus(tokenizer, np.random.default_rng(args.seed), FAMILY_SHARES, skills)
    train(model, corpus, steps=args.steps, batch=args.batch, rate=args.rate)
    model.save_pretrained(args.out)
    (args.out / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
    report = measure(model, tokenizer, TRAINED_ON, samples=args.samples)
    report["arithmetic"] = measure_arithmetic(model, tokenizer, samples=args.samples)
    torch.manual_seed(args.seed)  # as --measure does, so that both ways give the same figures
    report |= measure(model, tokenizer, RECOMBINED, samples=args.samples)
    print_report(report)
    command = f"python scripts/make_tiny_policy.py --seed {args.seed} --steps {args.steps} --batch {args.batch}"
    made = {"command": f"{command} --rate {args.rate}", "torch": torch.__version__, "samples": args.samples}
    write(args.out, made, report)


def measure_only(args: argparse.Namespace) -> None:
    """Add the worlds that the checkpoint's record lacks; the checkpoint and the other figures stay as they are."""
    stored = json.loads((args.out / "worlds.json").read_text())
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, tokenizer = LlamaForCausalLM.from_pretrained(args.out), AutoTokenizer.from_pretrained(args.out)
    missing = [name for name in RECOMBINED if name not in stored["worlds"]]
    report = measure(model, tokenizer, missing, samples=args.samples)
    print_report(report)
    write(args.out, stored["made"], stored["worlds"] | report)


def write(out: Path, made: dict[str, Any], report: dict[str, Any]) -> None:
    """The record of the checkpoint, for programs and for people."""
    (out / "worlds.json").write_text(json.dumps({"made": made, "worlds": report}, indent=1) + "\n")
    (out / "README.md").write_text(readme(made, report))


if __name__ == "__main__":
    main()
