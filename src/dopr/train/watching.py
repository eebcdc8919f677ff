"""What makes ``DoPRTrainer`` notice trouble: rewards that are no use, rounds without signal, broken losses and gradients."""

from __future__ import annotations

from typing import Any

import torch

from dopr.errors import RunError
from dopr.train.health import HealthWatch, Signs
from dopr.train.record import Round
from dopr.train.resume import Resumable
from dopr.train.watch import ConstantWatch, TopWatch, Verdict

#: Rewards beyond this would overflow float32 when squared: they count as unscorable.
LARGEST_REWARD = 1e15


class Watching(Resumable):
    """Mixin of ``DoPRTrainer``; everything it touches is set up there."""

    last_round: dict[str, Any]
    stop_reason: str | None
    round: int

    def _set_up_watches(self) -> None:
        a = self.args
        self._watch = ConstantWatch(a.dopr_warn_constant, a.dopr_stop_constant)
        self.health = HealthWatch(
            stop_unscorable=a.dopr_stop_unscorable, stop_skipped=a.dopr_stop_skipped, quiet=not a.dopr_warn_constant
        )
        self._top = TopWatch(self.selector.verified_from, a.dopr_warn_constant)
        self._finite_loss = True
        self._latest_mixed = False

    # -- rewards -------------------------------------------------------------------------------------------------

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's, with what is not a usable number turned into NaN, which both TRL and the selection leave out."""
        rewards = super()._calculate_rewards(*args, **kwargs)
        return torch.where(rewards.abs() <= LARGEST_REWARD, rewards, torch.nan)

    # -- rounds --------------------------------------------------------------------------------------------------

    def _check_signal(self, round_: Round) -> None:
        self._latest_mixed = "mixed" in round_.outcomes
        # Groups of one rollout cannot differ and say nothing of the signal.
        groups = [o for o, rewards in zip(round_.outcomes, round_.rewards, strict=True) if len(rewards) > 1]
        verdicts = [self._watch.see(groups) if groups else None, *self.health.see_round(self._signs(round_))]
        verdicts.append(self._top.see([r for some in round_.rewards for r in some if r is not None]))
        self._announce([v for v in verdicts if v is not None])

    def _signs(self, round_: Round) -> Signs:
        rewards = [r for group in round_.rewards for r in group]
        rates = [rate for rate in round_.rates if rate is not None]
        entropies = list(round_.entropies.values())
        return Signs(
            rollouts=len(rewards),
            unscorable=rewards.count(None),
            success=sum(rates) / len(rates) if rates else None,
            mixed=round_.informative_share,
            length=sum(round_.tokens) / max(1, len(rewards)),
            truncated=round_.cut_off,
            entropy=sum(entropies) / len(entropies) if entropies else None,
        )

    def _announce(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            text = verdict.text + (self._failures() if verdict.code == "unscorable" else "")
            if self.events:
                self.events.write("warning", round=self.round, code=verdict.code, text=text)
            earlier = f"{self.last_round['warning']} " if "warning" in self.last_round else ""
            self.last_round["warning"] = earlier + text
            if verdict.stop:
                self.stop_reason = text

    def _failures(self) -> str:
        """What the reward functions themselves say, where they keep count."""
        said = [(r.__name__, r.counts, r.last_failure) for r in self.reward_funcs if getattr(r, "last_failure", None)]
        return "".join(
            f" {name}: {counts['errors']} calls with errors, {counts['timeouts']} timeouts; latest: {_plain(failure)}"
            for name, counts, failure in said
        )

    # -- updates -------------------------------------------------------------------------------------------------

    def _check_update(self, loss: torch.Tensor) -> None:
        """After a micro-batch's backward pass: at the last one of an update, look at its gradient, and drop a broken one."""
        self._finite_loss &= bool(torch.isfinite(loss).all())
        if not self.accelerator.sync_gradients:
            return
        known, norm = self._gradient_norm()
        if known:
            rate = float(self.optimizer.param_groups[0]["lr"])
            before = self.health.skipped
            (broken,) = self.any_process(not self._finite_loss)
            self._announce(self.health.see_update(norm, finite_loss=not broken, mixed=self._latest_mixed, rate=rate))
            if self.health.skipped > before:
                self.model.zero_grad(
                    set_to_none=True
                )  # without gradients the optimizer changes nothing, moments included
        self._finite_loss = True
        if self.stop_reason:
            self.control.should_training_stop = True

    def _gradient_norm(self) -> tuple[bool, float | None]:
        """Whether the norm can be known here, and the norm before clipping; ``None`` = no gradient.

        Not where the engine shards or rescales gradients itself (FSDP, DeepSpeed, float16 loss scaling).
        """
        kind = str(self.accelerator.distributed_type).rpartition(".")[2]
        if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM") or getattr(self.accelerator, "scaler", None) is not None:
            return False, None
        norms = [
            torch.linalg.vector_norm(p.grad.detach().float()) for p in self.model.parameters() if p.grad is not None
        ]
        if not norms:
            return True, None
        return True, float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])))

    def explained(self, error: RuntimeError) -> RunError | None:
        """A diagnosis, if ``error`` came up because the weights or the policy's logits are no longer numbers."""
        broken = [name for name, p in self.model.named_parameters() if not torch.isfinite(p).all()]
        if not broken and "probability tensor" not in str(error):
            return None
        what = (
            f"{len(broken)} of its tensors hold NaN or infinity, such as {broken[0]}"
            if broken
            else "its logits overflow"
        )
        rate = float(self.optimizer.param_groups[0]["lr"]) if self.optimizer is not None else self.args.learning_rate
        return RunError(
            f"The policy is broken at round {self.round}: {what}. The learning rate {rate:.3g} was probably too large. Start "
            "again with a smaller one, or resume from a checkpoint before this round with --force and a smaller "
            "--learning-rate."
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if (broken := self.explained(RuntimeError())) is not None:
            raise broken  # rather than put broken weights in the place of good ones
        super()._save_checkpoint(model, trial)

    # -- state ---------------------------------------------------------------------------------------------------

    def watch_state(self) -> dict[str, Any]:
        """What the watches have counted, as plain values."""
        return {
            "constant": self._watch.state_dict(), "health": self.health.state_dict(), "top": self._top.state_dict(),
            "mixed": self._latest_mixed,
        }  # fmt: skip

    def load_watch_state(self, state: dict[str, Any]) -> None:
        """Restore ``watch_state``."""
        self._watch.load_state_dict(state["constant"])
        self.health.load_state_dict(state["health"])
        self._top.load_state_dict(state.get("top", {}))
        self._latest_mixed = bool(state["mixed"])


def _plain(text: str) -> str:
    """At most 200 characters without control codes: an exception may quote what the policy wrote."""
    return "".join(c if c.isprintable() else " " for c in text[:200])
