"""What happens between updates: budget, evaluation, progress, interruption."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from dopr.budget import SPENT, Budget
from dopr.evaluate import Evaluation
from dopr.train.trainer import DoPRTrainer

Progress = Callable[[dict[str, Any], float], None]
"""Told (latest round's event, share of the budget spent) after every update."""


def eval_event(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as fields of an ``eval`` event."""
    interval = evaluation.accuracy
    return {
        "accuracy": interval.estimate, "low": interval.low, "high": interval.high, "n": len(evaluation.ids),
        "tokens": evaluation.tokens, "by_skill": evaluation.by_skill,
        "correct": [int(n) for n in evaluation.correct.sum(axis=1)], "samples": int(evaluation.correct.shape[1]),
    }  # fmt: skip


class RunCallback(TrainerCallback):
    """Ends the run at its budget or target, evaluates along the way, and stops cleanly on the first Ctrl-C.

    Args:
        budget: When to stop.
        evaluations: Evaluations spread evenly over the budget, before its end.
        measure: Evaluates the live policy; ``None`` = no held-out problems.
        decode: Evaluates it by greedy decoding, too, before and after; ``None`` = ``measure`` does.
        target: Accuracy at which to stop; ``None`` = never.
        progress: Told after every update.
        save_minutes: Checkpoint when the last one is so old; 0 = never.
    """

    def __init__(
        self, *, budget: Budget, evaluations: int, measure: Callable[[], Evaluation] | None,
        target: float | None, progress: Progress, save_minutes: float = 0.0, decode: Callable[[], Evaluation] | None = None,
    ) -> None:  # fmt: skip
        self.save_seconds = 60 * save_minutes
        self._saved = time.monotonic()
        self.decode = decode
        self.budget, self.evaluations, self.measure, self.target, self.progress = (
            budget, evaluations, measure, target, progress,
        )  # fmt: skip
        self.trainer: DoPRTrainer | None = None  # set once the trainer exists
        self.reason = "max_steps reached"  # what TRL ends at by itself
        self.at_target = False
        self._interrupted = False
        self._done = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over Ctrl-C and the termination signal; skip the evaluations that a resumed run has done."""
        if self.trainer is not None:
            self._done = int(self.budget.share(self.trainer.spent) * (self.evaluations + 1))
        self._previous = {s: signal.signal(s, self._interrupt) for s in (signal.SIGINT, signal.SIGTERM)}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After every update."""
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("RunCallback.trainer was not set.")
        trainer.spent.seconds = trainer.stopwatch.seconds  # a round is closed after its first micro-batch
        share = self.budget.share(trainer.spent)
        if self.measure and self.evaluations and share < 1 and int(share * (self.evaluations + 1)) > self._done:
            self._done = int(share * (self.evaluations + 1))
            evaluation = self.evaluate(trainer)
            if self.target is not None and evaluation and evaluation.accuracy.estimate >= self.target:
                self.at_target = control.should_training_stop = True
                self.reason = f"target accuracy {self.target:g} reached"
        self.progress(trainer.last_round, share)
        due = bool(self.save_seconds) and time.monotonic() - self._saved >= self.save_seconds
        interrupted, due, spent = trainer.any_process(self._interrupted, due, share >= 1)
        control.should_save |= due
        # The last one is what the run can be trained further from.
        control.should_save |= (spent or control.should_training_stop) and self._leaves_checkpoints(args)
        if spent:
            control.should_training_stop, self.reason = True, SPENT
        elif interrupted:
            control.should_training_stop = control.should_save = True
            self.reason = "interrupted"
        elif trainer.stop_reason:
            control.should_save = True
            self.reason = trainer.stop_reason

    def _leaves_checkpoints(self, args: Any) -> bool:
        return bool(self.save_seconds) or args.save_strategy != "no"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After every checkpoint."""
        self._saved = time.monotonic()

    def evaluate(self, trainer: DoPRTrainer, *, end: bool = False) -> Evaluation | None:
        """Evaluate now, off the clock, and write the event; at either ``end`` of the run by greedy decoding, too."""
        if self.measure is None:
            return None
        with trainer.stopwatch.paused():
            evaluation = self.measure()
            decoded = self.decode() if end and self.decode else None
        event = eval_event(evaluation)
        if self.at_target and end:
            event["redrawn"] = True
        if decoded is not None:
            event["greedy"] = [int(right) for right in decoded.correct[:, 0]]
        if trainer.events:
            trainer.events.write("eval", round=trainer.round, spent=trainer.spent.as_dict(), **event)
        return evaluation

    def _interrupt(self, number: int, frame: Any) -> None:
        if self._interrupted:  # the second time, at once
            raise KeyboardInterrupt
        self._interrupted = True
