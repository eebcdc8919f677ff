"""What makes ``DoPRTrainer`` stop and go on exactly: its state in every checkpoint, and checkpoints that are whole.

TRL's own checkpoints lack the prompts' histories, the position inside a generation window and the rollouts buffered
there, so a run resumed from them makes other choices and other updates than the uninterrupted one.
"""

from __future__ import annotations

import contextlib
import logging
import pickle  # for the name of an exception; nothing is unpickled
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from safetensors.torch import load_model, save_model

from dopr.budget import Spent
from dopr.errors import DoprError, RunError
from dopr.train import checkpoint as files
from dopr.train.replayer import Replayer
from dopr.train.state import STATE_FILE, load_state, save_state

if TYPE_CHECKING:
    from trl import GRPOTrainer as _Base
else:
    _Base = object

logger = logging.getLogger("dopr")

STATE_VERSION = 4
REFERENCE = "dopr_reference.safetensors"


class Resumable(_Base):
    """Mixin of ``DoPRTrainer``; everything it touches is set up there."""

    spent: Spent
    replayer: Replayer
    stop_reason: str | None
    round: int

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """``Trainer.train``; ``True`` resumes from the last complete checkpoint in ``output_dir``.

        Raises:
            RunError: No complete checkpoint there, or the one named is damaged.
        """
        self.stop_reason = None
        if not resume_from_checkpoint and self.events and not self.round and (aside := self.events.set_earlier_aside()):
            logger.warning("%s held an earlier run's rounds; they are kept as %s.", self.events.path, aside.name)
        if resume_from_checkpoint is True:
            folder = Path(self.args.output_dir)
            found, skipped = files.last_complete(folder)
            for line in skipped:
                logger.warning("Skipped %s.", line)
            if found is None:
                raise RunError(
                    f"{folder} holds no complete checkpoint to resume from{_listed(skipped)}. Start again, with a "
                    "save_strategy and save_steps that leave one earlier."
                )
            resume_from_checkpoint = str(found)
        elif resume_from_checkpoint and not self.args.dopr_force_resume:
            wrong = files.flaw(Path(resume_from_checkpoint))
            if wrong is not None:
                raise RunError(
                    f"The checkpoint {resume_from_checkpoint} cannot be resumed from: {wrong}. Give another one, or "
                    "True for the last complete one in output_dir."
                )
        return super().train(resume_from_checkpoint or None, *args, **kwargs)

    def any_process(self, *flags: bool) -> list[bool]:
        """For each flag whether it is up in any process: signals and clocks reach them at different times."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        return [any(column) for column in zip(*gather_object([flags]), strict=True)]

    # -- writing -------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        directory = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        main = self.accelerator.is_main_process
        if main and directory.exists():
            files.unseal(directory)
            shutil.rmtree(directory, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        # Older checkpoints may go only once this one is whole, so the base class must not remove any.
        keep = self.args.save_total_limit
        if not self.args.save_only_model:  # which leaves nothing to go on from, whole or not
            self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if main and not self.args.save_only_model:
                if self.events and self.events.path.exists():
                    files.sync_file(self.events.path)
                files.seal(directory)
        except Exception as error:
            files.remove_unfinished(directory)
            reason = files.unwritable(error, directory)
            if reason is None:
                raise
            raise RunError(
                f"The checkpoint {directory} cannot be written: {reason}. Make room or make it writable, then resume from "
                "the last complete checkpoint before it."
            ) from error
        finally:
            self.args.save_total_limit = keep
        if main and keep and not self.args.save_only_model:
            files.prune(directory.parent, directory, keep, self.state.best_model_checkpoint)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        window = self.args.steps_per_generation * self.num_iterations
        buffered = self._buffered_inputs if self._step % window else None
        if buffered is not None:
            files.save_window(_window_file(output_dir, self.accelerator.process_index), buffered)
        if self.accelerator.is_main_process:
            if (reference := self._moving_reference()) is not None:
                save_model(reference, str(Path(output_dir) / REFERENCE))
            state = {
                "version": STATE_VERSION, "job": self.job, "selector": self.selector.state_dict(),
                "spent": self.spent.as_dict(), "round": self.round, "step": self._step, "inside_window": buffered is not None,
                "watch": self.watch_state(), "rewards": self._reward_counts(), "metrics": dict(self._metrics["train"]),
                "events": self.events.size if self.events else 0, "replay": self.replayer.state_dict(),
            }  # fmt: skip
            save_state(Path(output_dir) / STATE_FILE, state)

    def _moving_reference(self) -> Any:
        """The reference policy, where training changes it (``sync_ref_model``); TRL's checkpoints leave it out."""
        moving = self.args.sync_ref_model and self.ref_model is not None
        return self.accelerator.unwrap_model(self.ref_model) if moving else None

    def _reward_counts(self) -> dict[str, dict[str, int]]:
        """Counters of the reward functions that have any, by position."""
        return {str(i): dict(r.counts) for i, r in enumerate(self.reward_funcs) if hasattr(r, "counts")}

    # -- reading -------------------------------------------------------------------------------------------------

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _only_data(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._take_state(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _only_data(checkpoint):
            super()._load_rng_state(checkpoint)

    def _take_state(self, checkpoint: str) -> None:
        path = Path(checkpoint) / STATE_FILE
        state = load_state(path)
        try:
            self._restore(state, checkpoint)
            if self.events:
                self.events.cut_back(int(state["events"]), self.round)
        except DoprError:
            raise
        except files.STATE_ERRORS as error:
            raise RunError(
                f"{path} is not the state of such a run ({type(error).__name__}: {error}). Resume from another checkpoint."
            ) from error

    def load_checkpoint(self, checkpoint: Path) -> None:
        """Take weights, selection and totals of ``checkpoint`` without training on; the optimizer's state stays out."""
        self._load_from_checkpoint(str(checkpoint))
        self._take_state(str(checkpoint))

    def _restore(self, state: dict[str, Any], checkpoint: str) -> None:
        if state.get("version") != STATE_VERSION:
            raise RunError(
                f"The checkpoint {checkpoint} has a state of version {state.get('version')!r}; this dopr reads version "
                f"{STATE_VERSION}. Resume it with the dopr that wrote it."
            )
        changed = files.differences(state["job"], {k: v for k, v in self.job.items() if k in state["job"]})
        if changed and not self.args.dopr_force_resume:
            raise RunError(
                f"The checkpoint {checkpoint} belongs to a run with other data, model or settings ({'; '.join(changed)}). "
                "Set them back, start a new run, or force it (--force, dopr_force_resume=True): then it goes on, but not "
                "as the uninterrupted run would have."
            )
        if (reference := self._moving_reference()) is not None and (Path(checkpoint) / REFERENCE).exists():
            load_model(reference, str(Path(checkpoint) / REFERENCE))
        self.selector.load_state_dict(state["selector"])
        self.round = int(state["round"])
        self.spent = Spent(**{k: type(getattr(self.spent, k))(v) for k, v in state["spent"].items()})
        self.load_watch_state(state["watch"])
        for i, counts in state["rewards"].items():
            if int(i) < len(self.reward_funcs) and hasattr(self.reward_funcs[int(i)], "counts"):
                self.reward_funcs[int(i)].counts.update(counts)
        self._metrics["train"].update({name: list(values) for name, values in state["metrics"].items()})
        self.replayer.load_state_dict(state["replay"])
        self._step = int(state["step"])
        self._buffered_inputs = None
        if not state["inside_window"]:
            return
        window = None
        if not any(state["job"].get(name) != self.job.get(name) for name in files.GEOMETRY):
            rank = self.accelerator.process_index
            window = files.load_window(_window_file(checkpoint, rank), self.accelerator.device)
        if window is None:
            self._step = 0
            logger.warning("The rollouts buffered in %s cannot be used here; a new round is rolled out.", checkpoint)
        self._buffered_inputs = window


@contextlib.contextmanager
def _only_data(checkpoint: str | None) -> Iterator[None]:
    """Name the checkpoint when torch's restricted unpickler refuses what is in it."""
    try:
        yield
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"The optimizer, scheduler or random state in {checkpoint} holds something other than data and was not loaded. "
            "Resume from another checkpoint."
        ) from error


def _window_file(directory: str, rank: int) -> Path:
    return Path(directory) / f"dopr_window_{rank}.safetensors"


def _listed(skipped: list[str]) -> str:
    return f" ({'; '.join(skipped)})" if skipped else ""
