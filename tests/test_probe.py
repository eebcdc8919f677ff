"""The KL probe: its estimate against exact enumeration, and that measuring changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError
from dopr.report_bounds import probe_summary
from dopr.runlog import read_events

pytest.importorskip("trl", reason="TRL is not installed")
import torch

from trl_kit import byte_tokenizer, random_policy, trainer, two_processes

pytestmark = pytest.mark.trl


def token_logps(policy: Any, prompt: str, begun: list[list[int]]) -> torch.Tensor:
    ids = torch.tensor([[*byte_tokenizer()(prompt)["input_ids"], *begin] for begin in begun])
    with torch.no_grad():
        return torch.log_softmax(policy(ids).logits[:, -1].double(), dim=-1)


def exact_divergence(new: Any, old: Any, prompt: str) -> float:
    """KL(new || old) of completions of at most two tokens, by enumeration."""
    first = [token_logps(policy, prompt, [[]])[0] for policy in (new, old)]
    total = float((first[0].exp() * (first[0] - first[1])).sum())
    goes_on = [t for t in range(258) if t != 257]  # 257 ends the completion
    second = [token_logps(policy, prompt, [[t] for t in goes_on]) for policy in (new, old)]
    inner = (second[0].exp() * (second[0] - second[1])).sum(dim=1)
    return total + float((first[0].exp()[goes_on] * inner).sum())


def test_the_estimate_is_the_exact_divergence_on_average(tmp_path: Path) -> None:
    t = trainer(tmp_path, max_completion_length=2, dopr_probe=40, learning_rate=3e-3)
    probe = next(c for c in t.callback_handler.callbacks if type(c).__name__ == "KLProbe")
    old = random_policy()
    old.load_state_dict(t.model.state_dict())
    torch.manual_seed(3)
    looks = [probe._look(step) for step in range(25)]
    with torch.no_grad():
        for p in t.model.parameters():
            p += 0.02 * torch.randn_like(p)
    estimates = np.array([probe._divergences(look) for look in looks])  # (25, 40)
    exact = np.array([exact_divergence(t.model, old, prompt) for prompt in probe.prompts])
    assert exact.mean() > 1e-3
    error = estimates.mean(axis=1).std(ddof=1) / np.sqrt(25)
    assert abs(estimates.mean() - exact.mean()) < 4 * error
    assert error < 0.05 * exact.mean()
    assert (estimates >= 0).all()


def test_measuring_changes_nothing_and_is_off_by_default(tmp_path: Path) -> None:
    runs = {}
    for name, settings in {"off": {}, "on": {"dopr_probe": 6, "dopr_probe_every": 2}}.items():
        t = trainer(tmp_path / name, **settings)
        t.train()
        events = read_events(tmp_path / name / "out")
        rounds = [[p["rewards"] for p in e["picks"]] for e in events if e["kind"] == "round"]
        runs[name] = (rounds, [p.detach().clone() for p in t.model.parameters()])
        probes = [e for e in events if e["kind"] == "probe"]
        if name == "off":
            assert not probes
            continue
        assert [e["step"] for e in probes] == [1, 3, 5]
        assert all(len(e["values"]) == 6 and e["kl"] >= 0 for e in probes)
        assert max(e["kl"] for e in probes) > 1e-6
        summary = probe_summary(events)
        assert summary is not None
        assert summary["kl"] == pytest.approx(np.mean([e["kl"] for e in probes]), rel=1e-4)
        assert (summary["measured"], summary["prompts"]) == (3, 6)
    assert runs["off"][0] == runs["on"][0]
    assert all(torch.equal(a, b) for a, b in zip(runs["off"][1], runs["on"][1], strict=True))


def test_a_step_without_gradient_measures_no_divergence(tmp_path: Path) -> None:
    t = trainer(
        tmp_path,
        reward=lambda completions, **_: [0.0] * len(completions),
        dopr_probe=4,
        dopr_probe_every=1,
        dopr_strategy="random-one",
    )
    t.train()
    probes = [e for e in read_events(tmp_path / "out") if e["kind"] == "probe"]
    assert len(probes) == 6
    assert all(e["kl"] == 0 for e in probes)  # theorem T1: nothing mixed, nothing moves


def test_an_adapter_is_measured_as_the_policy_it_is(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    lora = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    t = trainer(tmp_path, dopr_probe=4, dopr_probe_every=1, learning_rate=1e-2, extra={"peft_config": lora})
    t.train()
    values = [e["kl"] for e in read_events(tmp_path / "out") if e["kind"] == "probe"]
    assert len(values) == 6
    assert max(values) > 1e-6


def test_impossible_probe_settings_are_refused(tmp_path: Path) -> None:
    for settings in ({"dopr_probe": -1}, {"dopr_probe": 4, "dopr_probe_every": 0}):
        with pytest.raises(ConfigError, match="dopr_probe"):
            trainer(tmp_path, **settings)


TWO = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from trl_kit import parameters, trainer
folder = Path(sys.argv[2])
t = trainer(folder, per_device_train_batch_size=2, max_steps=4, dopr_probe=5, dopr_probe_every=2)
t.train()
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(parameters(t)))
t.accelerator.wait_for_everyone()
t.accelerator.end_training()
"""


@pytest.mark.slow
def test_with_two_processes_one_measures_and_both_stay_equal(tmp_path: Path) -> None:
    first, second = two_processes(tmp_path, TWO)
    assert first == second
    probes = [e for e in read_events(tmp_path / "out") if e["kind"] == "probe"]
    assert [e["step"] for e in probes] == [1, 3]
    assert any(e["kl"] > 0 for e in probes)
