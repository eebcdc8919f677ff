"""``DoPRTrainer``: TRL's ``GRPOTrainer`` with the choice of prompts inside its generation step.

A sampler would choose too early: dataloaders read ahead, so the choice would miss the rewards of the latest rounds. So
the dataloader deals content-free tickets, and prompts are chosen, rolled out, verified and reported back within one
call of ``_generate_and_score_completions``. Every strategy runs through this same code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from numpy.typing import NDArray
from trl import GRPOTrainer

from dopr.budget import Spent, Stopwatch
from dopr.errors import ConfigError
from dopr.generation import NEUTRAL, tokenize
from dopr.runlog import EVENTS, EventLog
from dopr.selection.registry import make_selector
from dopr.selection.selector import Selector
from dopr.train.base_policy import BasePolicy
from dopr.train.captured import Captured
from dopr.train.checkpoint import job_of
from dopr.train.config import DoPRConfig
from dopr.train.features import hidden_features
from dopr.train.logged import log_own_rows
from dopr.train.measure import draw
from dopr.train.metadata import metadata_of
from dopr.train.probe import KLProbe
from dopr.train.record import Round
from dopr.train.replayer import Replayer
from dopr.train.round import RoundRunner
from dopr.train.tickets import Tickets, TicketSampler, prompt_ids_of


class DoPRTrainer(Captured, GRPOTrainer):
    """Drop-in ``GRPOTrainer`` that chooses which prompts to roll out.

    Takes ``GRPOTrainer``'s arguments, with a ``DoPRConfig`` as ``args``, and in addition:

    Args:
        selector: A ready ``Selector`` over the dataset's ids; default: built from ``args.dopr_strategy``.
        features: Prompt features of shape (len(train_dataset), D) for strategies that share evidence between prompts;
            default: computed from the policy when ``args.dopr_features`` is ``hidden``.
        probe_prompts: Prompts on which ``args.dopr_probe`` measures each update's KL, text or chat messages; default: drawn from
            ``train_dataset``. Theorem T2 speaks of the success on prompts like these.

    Attributes:
        selector: The strategy in use.
        spent: Running totals of rollouts, tokens, seconds, updates and prompts.
        round: Rounds begun, one per generation window.
        last_round: The event of the latest finished round.

    Raises:
        ConfigError: No training set, a streaming one, repeated ids, or settings the pool cannot satisfy.
    """

    _tag_names = ("trl", "grpo", "dopr")
    _name = "DoPR"

    def __init__(
        self,
        *args: Any,
        selector: Selector | None = None,
        features: NDArray[np.floating] | None = None,
        probe_prompts: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.args, DoPRConfig):
            raise ConfigError(f"DoPRTrainer needs a DoPRConfig as args; got {type(self.args).__name__}.")
        if not isinstance(self.train_dataset, Dataset):
            raise ConfigError(
                f"DoPRTrainer needs a datasets.Dataset it can index as train_dataset; got {type(self.train_dataset).__name__}. "
                "Selection must be able to come back to any prompt, so streaming sets do not work."
            )
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world != self.accelerator.num_processes:
            raise ConfigError(
                f"WORLD_SIZE is {world} but accelerate runs {self.accelerator.num_processes} process(es): each would "
                "train on its own. On CPUs pass use_cpu=True in the config."
            )
        ids = prompt_ids_of(self.train_dataset, self.args.dopr_id_column)
        self.job = job_of(self.args, ids, self.train_dataset, self.model, world)
        self.selector = selector or make_selector(
            self.args.dopr_strategy, ids, self.args.selector_config(), self.args.options
        )
        if [str(i) for i in self.selector.ids] != ids and not isinstance(self.selector.ids, range):
            raise ConfigError(
                "The selector was made for other prompts than the training set's, or in another order: rewards would be credited to the wrong ones. "
                f"Make it with the {len(ids)} ids of the dataset's column {self.args.dopr_id_column!r}, in its order."
            )
        if len(self.selector.ids) != len(ids) or self.selector.config.prompts_per_round != self.args.prompts_per_round:
            raise ConfigError(
                f"The selector chooses {self.selector.config.prompts_per_round} of {len(self.selector.ids)} prompts a round, the trainer wants "
                f"{self.args.prompts_per_round} of {len(ids)}. Make it with args.selector_config()."
            )
        columns = self.train_dataset.column_names
        self.selector.set_metadata(
            metadata_of(
                lambda name: list(self.train_dataset[name]) if name in columns else None,
                category=self.args.dopr_category_column,
                difficulty=self.args.dopr_difficulty_column,
            )
        )
        self.selector.check_metadata()
        if not self.use_vllm:
            self._sample_the_policy_itself()
        self._features = features
        self._features_given = False
        self.spent = Spent()
        self.stopwatch = Stopwatch()
        self.round = 0
        self.stop_reason: str | None = None
        # Verified means the most the reward functions can give together; the scale widens if one gives more than 1.
        self.selector.scale.high = max(1e-6, float(self.reward_weights.clamp(min=0).sum()))
        if self.args.dopr_success is not None:
            self.selector.success = self.selector.scale.high = self.args.dopr_success
            self.selector.scale.low = min(0.0, self.args.dopr_success - 1)
        self.last_round: dict[str, Any] = {}
        self._open_round: Round | None = None
        self._set_up_capture()
        self.replayer = Replayer(self)
        self.base_policy = BasePolicy(self, wanted=self.selector.searches_base)
        self._set_up_watches()
        path = Path(self.args.dopr_events or Path(self.args.output_dir) / EVENTS)
        self.events = EventLog(path) if self.accelerator.is_main_process else None
        if self.args.dopr_probe:
            candidates = list(self.train_dataset["prompt"]) if probe_prompts is None else probe_prompts
            self.add_callback(KLProbe(self, draw(candidates, self.args.dopr_probe, self.args.seed)))

    def _sample_the_policy_itself(self) -> None:
        """Switch off what the checkpoint's generation settings ask for and the configuration does not: evaluations do the same."""
        asked = self.accelerator.unwrap_model(self.model).generation_config
        for name, value in {**NEUTRAL, "min_p": 0.0}.items():
            # Only where there is something to switch off: some of these cost time at every token.
            if getattr(self.generation_config, name, None) is None and getattr(asked, name, None) not in (None, value):
                setattr(self.generation_config, name, value)
                self.generation_kwargs[name] = value

    def _send_telemetry(self) -> None:
        """TRL reports each trainer that is made to the Hugging Face Hub; this one does not."""

    # -- data: tickets instead of prompts ------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """A dataloader of tickets, one per generation window; as many an epoch as rounds deal every prompt once."""
        return self._get_dataloader(
            dataset=Tickets(self.selector.plan.rounds_per_epoch),
            description="Training",
            batch_size=self._train_batch_size * self.args.steps_per_generation,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        window = self.num_iterations * self.args.steps_per_generation
        return TicketSampler(len(dataset), self.args.generation_batch_size * window)

    # -- one round -----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        self._finish_round()
        self.stopwatch.start(before=self.spent.seconds)
        if (again := self.replayer.window()) is not None:
            self._latest_mixed = False
            return again
        self._give_features()
        started = time.perf_counter()
        self.round += 1
        picks = self.agree(self.selector.ask())
        selected = time.perf_counter()
        runner = RoundRunner(self, super()._generate_and_score_completions, rows_per_process=len(inputs))
        try:
            batch, self._open_round = runner.run(picks, started=started, selected=selected)
        except RuntimeError as error:
            if (diagnosis := self.explained(error)) is not None:
                raise diagnosis from error
            raise
        return batch

    @property
    def logged(self) -> dict[str, list[float]]:
        """What TRL will log of training next: lists to average, by name."""
        return self._metrics["train"]

    def fill_log_probabilities(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Give replayed rows the current policy's log-probabilities wherever the batch carries any.

        As old log-probabilities they make the importance ratio 1. As reference they make the KL term 0: its estimator
        needs samples of the current policy, which replayed rows are not.
        """
        wanted = [key for key in rows if key.endswith("_per_token_logps")]
        return rows | dict.fromkeys(wanted, self.log_probabilities(rows)) if wanted else rows

    def log_probabilities(self, rows: dict[str, Any]) -> torch.Tensor:
        """The current policy's log-probabilities (nats) of the rows' completion tokens, shape (R, C)."""
        ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
        mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
        with torch.no_grad():
            return self._get_per_token_logps_and_entropies(
                self.model, ids, mask, rows["completion_ids"].size(1), self.args.per_device_train_batch_size
            )[0]

    def gather_dict(self, mine: dict[int, Any]) -> dict[int, Any]:
        """Union of all processes' dicts."""
        if self.accelerator.num_processes == 1:
            return mine
        return {k: v for part in gather_object([mine]) for k, v in part.items()}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        log_own_rows(self, inputs)
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One micro-batch; the first after a generation closes the round's record."""
        loss = super().training_step(*args, **kwargs)
        self.spent.updates = self.state.global_step + int(self.accelerator.sync_gradients)
        self._finish_round()
        self._check_update(loss)
        return loss

    def _finish_round(self) -> None:
        """Report the entropies of the round to the selector and write its event."""
        if (round_ := self._open_round) is None:
            return
        self._open_round = None
        for position, entropy in self._entropies(len(round_.picks)).items():
            self.selector.tell_entropy(round_.picks[position].prompt_id, entropy)
            round_.entropies[position] = entropy
        self.spent.seconds = self.stopwatch.seconds
        self.last_round = round_.event(self.spent, self.state.global_step)
        for name, value in self.selector.metrics().items():
            self._metrics["train"][f"dopr/{name}"].append(value)
        self._metrics["train"]["dopr/informative"].append(round_.informative_share)
        self._metrics["train"]["dopr/rollouts_total"] = [float(self.spent.rollouts)]
        if self.events:
            self.events.write("round", **self.last_round)
        self._check_signal(round_)

    def agree(self, picks: Sequence[Any]) -> list[Any]:
        """The main process's picks on every process: they are equal by construction, and must be equal in fact."""
        if self.accelerator.num_processes == 1:
            return list(picks)
        shared: list[Any] = [list(picks)]
        broadcast_object_list(shared)
        if [p.row for p in shared[0]] != [p.row for p in picks]:
            raise RuntimeError(
                "The processes chose different prompts: their selector states differ. "
                "Are reward functions deterministic across processes, and is the data the same?"
            )
        return list(shared[0])

    def _give_features(self) -> None:
        """Hand prompt features to the selector before its first choice; a resumed selector already has its own."""
        if self._features_given or not self.selector.uses_features or self.selector.round > 0:
            return
        self._features_given = True
        features = self._features
        if features is None and self.args.dopr_features == "hidden":
            prompts = self.train_dataset["prompt"]
            features = hidden_features(
                self.accelerator.unwrap_model(self.model), self.token_ids(list(prompts)), self.pad_id, self.args.seed
            )
        if features is not None and self.accelerator.num_processes > 1:
            shared: list[Any] = [features]
            broadcast_object_list(shared)  # hidden states may differ in the last bits between devices
            features = shared[0]
        self.selector.set_features(features)

    def token_ids(self, prompts: Sequence[Any]) -> list[list[int]]:
        """Token ids of each prompt, text or chat messages."""
        return tokenize(self._tokenizer, prompts, self.chat_template_kwargs)

    @property
    def pad_id(self) -> int:
        """Padding token id."""
        return int(self._tokenizer.pad_token_id)
