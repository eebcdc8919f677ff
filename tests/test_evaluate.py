from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dopr.errors import ConfigError, DataError, ModelError, RewardError
from dopr.evaluate import Completion, Evaluation, Sampling, evaluate, generate, load_policy
from dopr.metrics import maj_at_n, pass_at_k

torch = pytest.importorskip("torch", reason="needs dopr[train]")
transformers = pytest.importorskip("transformers", reason="needs dopr[train]")


def build_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {"<pad>": 0, "<eos>": 1} | {c: i + 2 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture(scope="module")
def policy():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=258,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            initializer_range=0.5,  # large, so that greedy choices are clear
        )
        model = transformers.LlamaForCausalLM(config).eval()
    return model, build_tokenizer()


PROMPTS = ["a", "what is 3 + 4?", "bb", "\u00e9t\u00e9", "what is 12 + 30, my friend?", "z"]


def greedy_by_hand(model, tokenizer, prompt, limit):
    """One prompt at a time, no padding, no cache, no generate()."""
    ids = tokenizer(prompt)["input_ids"]
    new: list[int] = []
    while len(new) < limit and 1 not in new:
        with torch.no_grad():
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_greedy_in_padded_batches_equals_greedy_by_hand(policy, batch_size):
    sampling = Sampling(max_new_tokens=7, batch_size=batch_size)
    got = generate(*policy, PROMPTS, sampling)
    for prompt, (completion,) in zip(PROMPTS, got, strict=True):
        assert list(completion.token_ids) == greedy_by_hand(*policy, prompt, 7)


def test_sampling_follows_the_softmax_at_the_temperature(policy):
    model, tokenizer = policy
    n, temperature = 4000, 1.7
    (group,) = generate(
        model, tokenizer, ["what"], Sampling(n=n, temperature=temperature, max_new_tokens=1, batch_size=1000)
    )
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer("what")["input_ids"]])).logits[0, -1]
    expected = torch.softmax(logits / temperature, -1).numpy()
    counts = np.bincount([c.token_ids[0] for c in group], minlength=258) / n
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(expected.max() / n) + 1e-3)


def test_top_k_and_top_p_cut_the_tail(policy):
    for cut in ({"top_k": 1}, {"top_p": 1e-6}):
        (group,) = generate(*policy, ["what"], Sampling(n=20, temperature=2.0, max_new_tokens=3, **cut))
        assert len({c.token_ids for c in group}) == 1
    (group,) = generate(*policy, ["what"], Sampling(n=60, temperature=2.0, max_new_tokens=1))
    assert len({c.token_ids for c in group}) > 10


def test_the_checkpoints_own_generation_settings_do_not_shape_the_policy(policy):
    model, tokenizer = policy
    sampling = Sampling(n=30, temperature=1.0, max_new_tokens=4)
    greedy = Sampling(max_new_tokens=12)
    before = generate(model, tokenizer, PROMPTS, sampling), generate(model, tokenizer, PROMPTS, greedy)
    saved = model.generation_config
    model.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=0.1, top_k=1, top_p=0.1, min_p=0.9, repetition_penalty=5.0, pad_token_id=0,
        eos_token_id=1, no_repeat_ngram_size=1,
    )  # fmt: skip
    try:
        assert (generate(model, tokenizer, PROMPTS, sampling), generate(model, tokenizer, PROMPTS, greedy)) == before
    finally:
        model.generation_config = saved


def test_any_of_several_stop_tokens_ends_a_completion(policy):
    model, tokenizer = policy
    plain = [greedy_by_hand(model, tokenizer, prompt, 8) for prompt in PROMPTS]
    stop = plain[1][2]
    saved = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [255, stop]
    try:
        got = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=8))
    finally:
        model.generation_config.eos_token_id = saved
    for tokens, (completion,) in zip(plain, got, strict=True):
        ends = [i for i, t in enumerate(tokens) if t in (1, 255, stop)]
        expected = tokens[: ends[0] + 1] if ends else tokens
        assert list(completion.token_ids) == expected
        assert completion.n_tokens == len(expected)
        assert completion.truncated is (not ends)
    assert any(not c.truncated for (c,) in got)
    assert any(c.truncated for (c,) in got)


def test_generation_leaves_random_state_and_training_modes_as_found(policy):
    model, tokenizer = policy
    model.train()
    frozen = model.model.layers[0]
    frozen.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    model.config.use_cache = False
    try:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        first = generate(model, tokenizer, PROMPTS, Sampling(n=2, temperature=1.0, max_new_tokens=4, seed=1))
        assert torch.equal(torch.rand(3), expected)
        assert {name: module.training for name, module in model.named_modules()} == modes
        again = generate(model, tokenizer, PROMPTS, Sampling(n=2, temperature=1.0, max_new_tokens=4, seed=1))
        other = generate(model, tokenizer, PROMPTS, Sampling(n=2, temperature=1.0, max_new_tokens=4, seed=2))
        assert first == again != other
    finally:
        model.eval()
        model.config.use_cache = True


def test_the_cache_is_used_even_where_training_switched_it_off(policy):
    model, tokenizer = policy
    widths = []
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[1]))
    model.config.use_cache = model.generation_config.use_cache = False
    try:
        generate(model, tokenizer, ["abcdef"], Sampling(max_new_tokens=4))
    finally:
        handle.remove()
        model.config.use_cache = model.generation_config.use_cache = True
    assert widths == [6, 1, 1, 1]


def test_modes_come_back_after_an_error_too(policy):
    model, tokenizer = policy

    def stop(done, total):
        raise KeyboardInterrupt

    model.train()
    try:
        with pytest.raises(KeyboardInterrupt):
            generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=2), progress=stop)
        assert all(module.training for module in model.modules())
    finally:
        model.eval()


def test_progress_counts_rollouts(policy):
    seen = []
    generate(
        *policy,
        PROMPTS,
        Sampling(n=3, temperature=1.0, max_new_tokens=2, batch_size=8),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(8, 18), (16, 18), (18, 18)]


def test_chat_messages_go_through_the_chat_template(policy):
    model, tokenizer = policy
    chat = [{"role": "user", "content": "what"}]
    with pytest.raises(ModelError, match="no chat template"):
        generate(model, tokenizer, [chat], Sampling(max_new_tokens=5))
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['content'] }}>{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )
    try:
        got = generate(model, tokenizer, [chat, "<what>A:"], Sampling(max_new_tokens=5))
    finally:
        tokenizer.chat_template = None
    assert got[0] == got[1]


def test_prompts_that_cannot_be_run_are_refused_before_any_generation(policy):
    with pytest.raises(DataError, match="Prompt 2 is empty"):
        generate(*policy, ["a", ""], Sampling(max_new_tokens=5))
    with pytest.raises(DataError, match=r"Prompt 2 has 120 tokens.*context of 128"):
        generate(*policy, ["a", "b" * 120], Sampling(max_new_tokens=9))
    assert generate(*policy, [], Sampling()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": 4},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": 0},
        {"max_new_tokens": 0},
        {"batch_size": 0},
        {"seed": -1},
    ],
)
def test_sampling_that_cannot_work_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong)) if wrong != {"n": 4} else "all be the same"):
        Sampling(**wrong)


def starts_right(completions, answer, **columns):
    """1 where the completion starts with the gold, None where it is empty."""
    return [None if not c else float(c.startswith(a)) for c, a in zip(completions, answer, strict=True)]


def rows_with_golds(policy, prompts=PROMPTS):
    """Golds such that greedy decoding is right on every other prompt."""
    greedy = generate(*policy, prompts, Sampling(max_new_tokens=6))
    return [
        {"id": f"p{i}", "prompt": p, "answer": g[0].text[:1] if i % 2 else "\x00", "skill": f"s{i % 2}"}
        for i, (p, g) in enumerate(zip(prompts, greedy, strict=True))
    ]


def test_evaluation_measures_what_the_reward_says(policy):
    result = evaluate(*policy, rows_with_golds(policy), starts_right, sampling=Sampling(max_new_tokens=6))
    assert result.accuracy.estimate == 0.5
    assert result.accuracy.low < 0.5 < result.accuracy.high
    assert result.by_skill == {"s0": 0.0, "s1": 1.0}
    summary = result.summary()
    assert list(summary["metrics"]) == ["greedy"]
    assert summary["tokens"] == sum(c.n_tokens for row in result.completions for c in row)
    assert summary["unscorable"] == 0
    assert summary["problems"] == 6


def test_metrics_of_samples_equal_the_formulas_on_the_recorded_rewards(policy):
    rows = rows_with_golds(policy)
    sampling = Sampling(n=6, temperature=0.7, max_new_tokens=2, seed=3)
    result = evaluate(*policy, rows, starts_right, sampling=sampling)
    correct = np.array([[r == 1.0 for r in row] for row in result.rewards])
    assert 0 < correct.mean() < 1
    metrics = result.summary()["metrics"]
    assert list(metrics) == ["avg@6", "pass@2", "pass@4", "pass@6", "maj@6"]
    assert metrics["avg@6"]["estimate"] == pytest.approx(correct.mean())
    assert metrics["pass@4"]["estimate"] == pytest.approx(pass_at_k(6, correct.sum(1), 4).mean())
    votes = [
        maj_at_n([c.text.strip() or None for c in row], list(ok))
        for row, ok in zip(result.completions, correct, strict=True)
    ]
    assert metrics["maj@6"]["estimate"] == pytest.approx(np.mean(votes))
    assert list(result.summary(k=[3])["metrics"]) == ["avg@6", "pass@3", "maj@6"]
    with pytest.raises(ConfigError, match=r"pass@8 cannot be measured with 6 samples"):
        result.summary(k=[8])
    again = evaluate(*policy, rows, starts_right, sampling=sampling)
    assert again.summary() | {"seconds": 0} == result.summary() | {"seconds": 0}


def test_the_reward_sees_every_column_once_per_completion_as_in_training(policy):
    calls = []

    def reward(prompts, completions, completion_ids, **columns):
        calls.append((prompts, completions, completion_ids, columns))
        return [0.0] * len(completions)

    rows = [{"id": f"p{i}", "prompt": PROMPTS[i % 6], "answer": str(i)} for i in range(40)] + [
        {"id": "last", "prompt": "x", "answer": "x", "level": 3}
    ]
    result = evaluate(*policy, rows, reward, sampling=Sampling(n=3, temperature=1.0, max_new_tokens=2))
    assert len(calls) > 1  # several calls, about as large as in training
    assert max(len(c[1]) for c in calls) <= 64
    assert [a for c in calls for a in c[3]["answer"]] == [row["answer"] for row in rows for _ in range(3)]
    assert [p for c in calls for p in c[0]] == [row["prompt"] for row in rows for _ in range(3)]
    assert [t for c in calls for t in c[1]] == [s.text for group in result.completions for s in group]
    assert [t for c in calls for t in c[2]] == [list(s.token_ids) for group in result.completions for s in group]
    assert calls[-1][3]["level"][-3:] == [3, 3, 3]
    assert calls[0][3]["level"][0] is None
    assert "prompt" not in calls[0][3]


def test_chat_rows_give_chat_completions(policy):
    model, tokenizer = policy
    seen = []

    def reward(completions, **columns):
        seen.extend(completions)
        return [1.0] * len(completions)

    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    try:
        rows = [{"prompt": [{"role": "user", "content": "hi"}], "answer": "x"}]
        result = evaluate(model, tokenizer, rows, reward, sampling=Sampling(max_new_tokens=3))
    finally:
        tokenizer.chat_template = None
    assert seen == [[{"role": "assistant", "content": result.completions[0][0].text}]]


def test_unscorable_samples_are_counted_and_not_correct(policy):
    def reward(completions, **columns):
        return [None, float("nan"), 1.0, np.float32(1.0)]

    result = evaluate(*policy, [{"prompt": "a"}], reward, sampling=Sampling(n=4, temperature=1.0, max_new_tokens=2))
    assert result.rewards == [[None, None, 1.0, 1.0]]
    summary = result.summary(k=[4])
    assert summary["unscorable"] == 2
    assert summary["metrics"]["avg@4"]["estimate"] == 0.5


def test_the_majority_vote_reads_answers_with_the_rewards_extract(policy):
    class Reward:
        __name__ = "half"

        def __call__(self, completions, **columns):
            return [1.0, 1.0, 0.0, 0.0, 0.0]

        def extract(self, text):
            return answers.pop(0)

    answers = ["7", "7", "1", "2", None]
    result = evaluate(*policy, [{"prompt": "a"}], Reward(), sampling=Sampling(n=5, temperature=1.0, max_new_tokens=2))
    assert result.extracted == [["7", "7", "1", "2", None]]
    assert result.summary()["metrics"]["maj@5"]["estimate"] == 1.0


def test_without_an_extract_the_stripped_text_is_the_answer(policy):
    def reward(completions, **columns):
        return [0.0] * len(completions)

    reward.extract = None  # as of a wrapped function that has none
    result = evaluate(*policy, [{"prompt": "a"}], reward, sampling=Sampling(n=4, temperature=1.0, max_new_tokens=3))
    assert result.extracted == [[c.text.strip() or None for c in result.completions[0]]]


@pytest.mark.parametrize("returned", [[1.0], ["yes", "no"], None, 1.0, [[1.0], [0.0]]])
def test_a_reward_of_the_wrong_shape_is_named(policy, returned):
    def my_reward(completions, **columns):
        return returned

    with pytest.raises(RewardError, match="'my_reward'"):
        evaluate(*policy, [{"prompt": "a"}, {"prompt": "b"}], my_reward, sampling=Sampling(max_new_tokens=1))


def test_no_rows_and_rows_without_prompt_are_refused(policy):
    with pytest.raises(DataError, match="empty"):
        evaluate(*policy, [], starts_right, sampling=Sampling())
    with pytest.raises(DataError, match=r"Row 2 has no prompt; it has question"):
        evaluate(*policy, [{"prompt": "a"}, {"question": "b"}], starts_right, sampling=Sampling())


def hostile_evaluation():
    text = '</script>\u2028"\n\ud800'
    return Evaluation(
        ids=["<a>"],
        golds=[None],
        skills=[None],
        completions=[[Completion(text, (1, 2), False)]],
        rewards=[[None]],
        extracted=[[None]],
        sampling=Sampling(),
    )


def test_written_files_read_back_and_leave_nothing_half_written(tmp_path, policy):
    rows = rows_with_golds(policy)
    result = evaluate(*policy, rows, starts_right, sampling=Sampling(n=2, temperature=1.0, max_new_tokens=3))
    path = result.write(tmp_path / "new" / "dir")
    assert json.loads(path.read_text("utf-8")) == result.summary()
    lines = [json.loads(line) for line in (path.parent / "completions.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [line["rewards"] for line in lines] == result.rewards
    assert [line["completions"] for line in lines] == [[c.text for c in row] for row in result.completions]
    with pytest.raises(ConfigError):
        result.write(tmp_path / "bad", k=[9])
    assert not (tmp_path / "bad").exists()
    assert sorted(p.name for p in path.parent.iterdir()) == ["completions.jsonl", "evaluation.json"]


def test_hostile_completions_are_written_as_they_are(tmp_path):
    result = hostile_evaluation()
    result.write(tmp_path)
    (line,) = (tmp_path / "completions.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["completions"] == [result.completions[0][0].text]


@pytest.fixture(scope="module")
def saved(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "checkpoint-1"
    model, tokenizer = policy
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_saved_policy_loads_and_generates_the_same(policy, saved):
    model, tokenizer = load_policy(saved, device="cpu")
    assert not model.training
    assert next(model.parameters()).dtype == torch.float32
    sampling = Sampling(max_new_tokens=6)
    assert generate(model, tokenizer, PROMPTS, sampling) == generate(*policy, PROMPTS, sampling)
    half, _ = load_policy(saved, device="cpu", dtype="bfloat16")
    assert next(half.parameters()).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft calls what transformers renames
def test_a_peft_adapter_loads_with_its_base(policy, saved, tmp_path):
    peft = pytest.importorskip("peft", reason="needs dopr[lora]")
    base, tokenizer = load_policy(saved, device="cpu")
    wrapped = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, r=4))
    wrapped.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(saved)
    model, tokenizer = load_policy(tmp_path / "adapter", device="cpu")  # the tokenizer is the base's
    sampling = Sampling(max_new_tokens=6)
    got = generate(model, tokenizer, PROMPTS, sampling)
    assert got == generate(wrapped, tokenizer, PROMPTS, sampling)
    assert got != generate(*policy, PROMPTS, sampling)
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="PEFT adapter for the base model"):
        load_policy(tmp_path / "adapter", device="cpu")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not name its base model"):
        load_policy(tmp_path / "adapter", device="cpu")


def test_a_tokenizer_without_pad_token_pads_with_its_end_token(saved, tmp_path, policy):
    model, _ = policy
    tokenizer = build_tokenizer()
    tokenizer.pad_token = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_policy(tmp_path, device="cpu")[1].pad_token == "<eos>"
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="neither a pad nor an end-of-text token"):
        load_policy(tmp_path, device="cpu")


def test_what_is_not_a_model_is_explained(saved, tmp_path):
    with pytest.raises(ModelError, match=r"no such directory, and it is not a Hub name"):
        load_policy("./nowhere/at/all")
    with pytest.raises(ModelError, match=r"no such directory"):
        load_policy("gone")
    with pytest.raises(ModelError, match="is a file"):
        load_policy(saved / "config.json")
    with pytest.raises(ModelError, match=r"no config.json. It holds checkpoint-1/\. Did you mean .*checkpoint-1'\?"):
        load_policy(saved.parent)
    with pytest.raises(ModelError, match="It holds nothing"):
        load_policy(tmp_path)


def copy_of(saved, target, *, without=()):
    target.mkdir()
    for file in saved.iterdir():
        if file.name not in without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_broken_checkpoints_are_explained(saved, tmp_path):
    path = copy_of(saved, tmp_path / "cut")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_policy(path, device="cpu")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_policy(copy_of(saved, tmp_path / "weightless", without=["model.safetensors"]), device="cpu")
    path = copy_of(saved, tmp_path / "json")
    (path / "config.json").write_text('{"model_type": "llama",')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_policy(path, device="cpu")
    path = copy_of(saved, tmp_path / "unknown")
    (path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ModelError, match="no-such-architecture"):
        load_policy(path, device="cpu")
    path = copy_of(saved, tmp_path / "code")
    (path / "config.json").write_text(
        '{"model_type": "x", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}'
    )
    (path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="never runs code from a checkpoint"):
        load_policy(path, device="cpu")


def test_weights_with_missing_tensors_are_refused_instead_of_filled_at_random(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    path = copy_of(saved, tmp_path / "holes")
    tensors = load_file(path / "model.safetensors")
    gone = next(name for name in sorted(tensors) if "layers.1" in name)
    del tensors[gone]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"1 tensors? (are|is) missing.*{gone}"):
        load_policy(path, device="cpu")


def test_a_model_without_tokenizer_is_explained(saved, tmp_path):
    path = copy_of(saved, tmp_path / "bare", without=["tokenizer.json", "tokenizer_config.json"])
    with pytest.raises(ModelError, match="no usable tokenizer"):
        load_policy(path, device="cpu")


def test_unknown_dtype_and_device_are_refused(saved):
    with pytest.raises(ConfigError, match="Did you mean 'float16'"):
        load_policy(saved, dtype="fp16")
    with pytest.raises(ConfigError, match="'gpu'"):
        load_policy(saved, device="gpu")


def test_a_hub_name_without_the_hub_is_explained():
    code = """
from dopr.evaluate import load_policy
from dopr.errors import ModelError
try:
    load_policy("nobody/no-such-model", device="cpu")
except ModelError as error:
    assert "There is no directory 'nobody/no-such-model'" in str(error), error
else:
    raise SystemExit("loaded")
"""
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_import_without_torch():
    code = "import sys, dopr.evaluate; sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
