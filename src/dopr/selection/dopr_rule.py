"""The dopr rule: Dynamic One-Shot Policy Refinement, in our own formulation.

The published abstract names the ingredients (one sample per batch, reward volatility, exploration-driven acquisition,
uncertainty) but its formula is not public; this one is ours. docs/algorithm.md derives it and reports the evidence.

For each candidate i, with everything estimated at three levels (prompt, cluster of prompts, pool):

    score_i = V_i * H_i * M_i / (1 + n_i)^visit_power  +  ucb * M_i * sqrt(ln(1 + t) / (1 + n_i))

V volatility (the chance that a group teaches, with what a search finds), H = 1 - p headroom, M entropy modulation, n visits of the
prompt's cluster, t rounds. As long as there are prompts never rolled out, those with a success to replay come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.selection import acquisition, chooser
from dopr.selection.clusters import cluster_features, default_clusters
from dopr.selection.dispersion import Dispersion
from dopr.selection.dopr_options import DoprOptions
from dopr.selection.history import Floats, Group, History, Rows, nested_mean
from dopr.selection.linear_prior import LinearPrior
from dopr.selection.memory import Success
from dopr.selection.rollouts import KEEP, Review, is_mixed, scorable_rewards
from dopr.selection.search_record import SearchRecord
from dopr.selection.selector import Selector
from dopr.selection.settings import SelectorConfig

#: Factor of the score of prompts that have been replayed: they come last, in the order of their scores.
_SOLVED = 1e-6


class Dopr(Selector):
    """One informative prompt per round: expected gain, sampled, damped by visits, shared through features."""

    name = "dopr"
    Options = DoprOptions
    options: DoprOptions
    uses_features = True
    # Two rollouts tell whether a group teaches; one that fails goes on up to the group size, one that succeeds does not.
    default_chunk = 2
    default_replay = 8
    default_replay_updates = 2

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: DoprOptions | None = None) -> None:
        super().__init__(ids, config, options)
        o = self.options
        self.n_clusters = min(o.clusters or default_clusters(len(ids)), len(ids))
        self.uses_features = self.n_clusters > 1
        self.labels: NDArray[np.int32] = np.zeros(len(ids), np.int32)
        self.clustered = False
        self._prompts, self._clusters, self._pool = (
            History(size, forgetting=o.forgetting, step=o.step, per_prompt=level == 0)
            for level, size in enumerate((len(ids), self.n_clusters, 1))
        )
        # Clusters before and after their first success, pooled (see ``_cluster_rates``).
        self._stages = History(2, forgetting=o.forgetting, step=o.step)
        self._unlocked = np.zeros(self.n_clusters, np.bool_)  # clusters that have shown a success
        self._solved = np.zeros(len(ids), np.bool_)  # prompts that have
        self._dispersion = Dispersion()
        self._linear = LinearPrior(len(ids))
        self._searches = SearchRecord(self.n_clusters, self.rollouts.wrong_cap)
        self._betas: tuple[int, Floats, Floats] | None = None  # see ``_cluster_betas``

    def set_features(self, features: NDArray[np.floating] | None, labels: NDArray[np.int32] | None = None) -> None:
        """Cluster the prompts by ``features`` (N, D), or take ready integer ``labels`` (N,) in [0, clusters)."""
        if labels is None:
            if features is None or not self.uses_features:
                return
            labels = cluster_features(features, self.n_clusters, self.config.seed)
            if self.options.linear:
                self._linear.set_features(features, self.config.seed)
        if labels.shape != (len(self.ids),) or labels.min() < 0 or labels.max() >= self.n_clusters:
            raise ConfigError(
                f"Cluster labels must have shape ({len(self.ids)},) with values in [0, {self.n_clusters}); "
                f"got shape {labels.shape}. Give one label (or feature row) per prompt."
            )
        self.labels, self.clustered = labels.astype(np.int32), True

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """As the caps say; where a success is not to be expected, failing groups go on with a search, one rollout at a time."""
        row, known = self._row(prompt_id), scorable_rewards(rewards)
        failing = bool(known) and not is_mixed(rewards) and not self.is_success(known[0])
        if not (failing and self._searching and self._locked(row, len(known))):
            return super().review(prompt_id, rewards)
        # One at a time: two of the same kind at once would be a repeat, and the first success ends the group.
        cluster = int(self.labels[row])
        more = self._searches.goes_on(cluster, len(rewards), self.rollouts.wrong_cap * self.options.search_depth)
        # What training has made too rare to be found may still be there in the base policy, and the other way round: in turn.
        turn = self._searches.in_vain[cluster] + len(rewards) // self.rollouts.wrong_cap
        base = self.options.base_search and turn % 2 == 1
        return Review("more", 1, search=True, base=bool(base)) if more else KEEP

    @property
    def searches_base(self) -> bool:
        """See ``Selector``."""
        return self._searching and self.options.base_search

    @property
    def _searching(self) -> bool:
        """Whether there are searches at all; none where plain groups were asked for."""
        return self.options.search and self.rollouts.chunk < self.rollouts.wrong_cap

    def _locked(self, row: int, failures: int) -> bool:
        """Whether its cluster never succeeded, or, ``failures`` later, fewer than one in ``wrong_cap`` rollouts would."""
        if not self._unlocked[self.labels[row]]:
            return True
        rows = np.array([row])
        rate = self._own_rates(rows, self._prior_rates(rows, None), None, failures)
        return bool(rate[0] * self.rollouts.wrong_cap < 1)

    def tell(
        self, prompt_id: str, rewards: Sequence[float | None], answers: Sequence[str] | None = None
    ) -> Group | None:
        """Learn from a finished group; a success solves its prompt and unlocks its cluster."""
        row = self._row(prompt_id)
        cluster = int(self.labels[row])
        known = scorable_rewards(rewards)
        right = [self.is_success(reward) for reward in known]
        found = True in right
        failures = right.index(True) if found else len(right)
        # With partial credit a group may end mixed without a success, and without a search.
        began = failures >= self.rollouts.chunk and not is_mixed(known[: self.rollouts.chunk])
        if known and self._searching and self._locked(row, max(failures, self.rollouts.chunk)):
            self._searches.spend(found, len(known))
            if began:
                self._searches.learn(cluster, found, range(self.rollouts.chunk, failures + found))
        group = super().tell(prompt_id, rewards, answers)
        if group is not None and found:
            if not self._unlocked[cluster] and self.options.progress:
                self._clusters.forget(cluster)
                if not group.mixed:  # it has taught nothing, so it still says what the cluster can do
                    self._clusters.successes[cluster] = group.n
            self._unlocked[cluster] = self._solved[row] = True
            self._betas = None
        return group

    def observe(self, row: int, group: Group) -> None:
        """Update prompt, cluster and pool, the spread of prompts around their cluster, and what features say of it."""
        cluster, round_ = int(self.labels[row]), self.round
        self._linear.learn(row, group.rate - float(self._cluster_rates(None)[cluster]))
        s, f = (float(counts[0]) for counts in self._clusters.counts(np.array([cluster]), round_))
        if s + f:  # else there is no rate to deviate from
            self._dispersion.learn(group, s, f)
        stage = int(self._unlocked[cluster])
        for history, where in ((self._prompts, row), (self._clusters, cluster), (self._pool, 0), (self._stages, stage)):
            history.observe(where, round_, group)
        self._betas = None

    def tell_entropy(self, prompt_id: str, entropy: float) -> None:
        """Update the running entropies at all three levels."""
        row = self._row(prompt_id)
        if np.isfinite(entropy):
            for history, where in ((self._prompts, row), (self._clusters, self.labels[row]), (self._pool, 0)):
                history.observe_entropy(int(where), entropy)

    def score(self, rows: Rows) -> Floats:
        """The rule above for candidate ``rows``."""
        scores = self._score(rows, self.success_probability(rows, self.rng if self.options.thompson else None))
        seen = np.count_nonzero(self._prompts.visits[rows])
        if self.options.fresh and self.n_replay and seen < len(rows):
            scores[self._solved[rows]] *= _SOLVED
        return scores

    def _score(self, rows: Rows, p: Floats) -> Floats:
        """The rule for prompts ``rows`` with success probabilities ``p``."""
        o, labels = self.options, self.labels[rows].astype(np.int64)
        visits = (self._clusters.visits[labels] if self.clustered else self._prompts.visits[rows]).astype(np.float64)
        modulation = acquisition.entropy_modulation(
            self._entropy(rows, labels), float(self._pool.entropy[0]), o.entropy_power
        )
        value = self._volatility(rows, labels, p) * ((1.0 - p) if o.headroom else 1.0)
        value = value * modulation * acquisition.visit_damping(visits, o.visit_power)
        if o.ucb:
            value = value + o.ucb * modulation * acquisition.upper_confidence_bonus(visits, self.round)
        return value

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """The maximum of the score, drawn in proportion to it, or at random."""
        if self.options.random:
            return self.rng.choice(len(scores), k, replace=False)
        return (chooser.sample if self.options.sampling else chooser.argmax)(scores, k, self.rng)

    def success_probability(self, rows: Rows, rng: np.random.Generator | None) -> Floats:
        """Success probability of each prompt in ``rows``: posterior mean, or one posterior draw with ``rng``.

        Beta posteriors nested in three levels. Pool rate -> Beta prior of each cluster; cluster rate, and what features say
        beyond it -> Beta prior of each of its prompts with the estimated concentration; a prompt's own discounted counts on
        top. A prompt never seen takes that prior's mean, a cluster never seen the pool's rate. One draw per cluster and
        round, so prompts of a cluster agree on it.
        """
        p = self._prior_rates(rows, rng)
        seen = np.flatnonzero(self._prompts.visits[rows])
        if len(seen):
            p[seen] = self._own_rates(rows[seen], p[seen], rng)
        return p

    def _prior_rates(self, rows: Rows, rng: np.random.Generator | None) -> Floats:
        """Success rates of prompts ``rows`` by their clusters and features, before their own record."""
        return self._linear.adjust(rows, self._cluster_rates(rng)[self.labels[rows]])

    def _cluster_rates(self, rng: np.random.Generator | None) -> Floats:
        """Success rate of every cluster, shape (clusters,): posterior mean, or one draw."""
        a, b = self._cluster_betas()
        return a / (a + b) if rng is None else rng.beta(a, b)

    def _cluster_betas(self) -> tuple[Floats, Floats]:
        """Parameters of the Beta posterior of every cluster's rate, each of shape (clusters,); kept until something changes.

        A first success is learned from, so what a cluster did before says little of what it does next. Its counts are
        forgotten then, but for a group all right, which taught nothing; its prior becomes how clusters did when seen again.
        """
        if self._betas is not None and self._betas[0] == self.round:
            return self._betas[1:]
        above, stage = self._pool, np.zeros(self.n_clusters, np.int64)
        if self.options.progress:
            above, stage = self._stages, self._unlocked.astype(np.int64)
        s, f = above.counts(np.arange(above.size), self.round)
        pooled = ((s + 1) / (s + f + 2))[stage]
        s, f = self._clusters.counts(np.arange(self.n_clusters), self.round)
        m = self.options.prior_strength
        self._betas = (self.round, m * pooled + s, m * (1 - pooled) + f)
        return self._betas[1:]

    def _own_rates(self, rows: Rows, rate: Floats, rng: np.random.Generator | None, failures: int = 0) -> Floats:
        """Success rate of prompts, given their prior ``rate`` and this many ``failures`` since: posterior mean, or one draw."""
        concentration = self._dispersion.concentration
        s, f = self._prompts.counts(rows, self.round)
        a, b = concentration * rate + s, concentration * (1 - rate) + f + failures
        # A floor keeps the Beta defined when the cluster draw is 0 or 1 and the counts agree with it.
        return a / (a + b) if rng is None else rng.beta(np.maximum(a, 1e-6), np.maximum(b, 1e-6))

    def _volatility(self, rows: Rows, labels: Rows, p: Floats) -> Floats:
        kind = self.options.volatility
        if kind == "expected":
            found = self._searches.rates(labels) if self._searching else 0.0
            return acquisition.mixed_probability(p, self.rollouts.wrong_cap, self.rollouts.right_cap, found)
        within = self._shared(rows, labels, "spread", 1.0)
        # Twice the standard deviation, as for ``within``: both are 1 for a rate that swings between 0 and 1.
        temporal = 2 * np.sqrt(self._shared(rows, labels, "rate_var", 0.25))
        return {"within": within, "temporal": temporal, "both": (within + temporal) / 2}[kind]

    def _entropy(self, rows: Rows, labels: Rows) -> Floats:
        shared = self._clusters.entropy[labels].astype(np.float64)
        own = self._prompts.entropy[rows].astype(np.float64)
        return np.where(np.isnan(own), shared, own)

    def _shared(self, rows: Rows, labels: Rows, field: str, optimistic: float) -> Floats:
        """A running statistic, shared between levels; before any visit: optimistic."""
        pool = np.zeros(len(labels), np.int64)
        return nested_mean(
            [(self._pool, pool, 1.0), (self._clusters, labels, 2.0), (self._prompts, rows, 2.0)], field, optimistic
        )

    def metrics(self) -> dict[str, float]:
        """Coverage of pool and clusters, the pooled success rate, and how alike clusters are."""
        s, f = self._pool.counts(np.zeros(1, np.int64), self.round)
        return super().metrics() | {
            "coverage": float((self._prompts.visits > 0).mean()),
            "clusters_seen": float((self._clusters.visits > 0).sum()),
            "pooled_success": float((s[0] + 1) / (s[0] + f[0] + 2)),
            "concentration": self._dispersion.concentration,
        }

    def remember(self, success: Success) -> None:
        """With ``contrast`` off, all of it will be replayed."""
        super().remember(success if self.options.contrast else replace(success, start=0))

    def memory_key(self, success: Success) -> int:
        """Its cluster, so that the memory stays spread over clusters."""
        return int(self.labels[self._row(success.prompt_id)])

    def weigh_keys(self, keys: Sequence[int]) -> Floats:
        """Headroom: successes of clusters that still fail are replayed more often; never fewer than a fiftieth as often."""
        if not self.options.balanced_replay:
            return np.array([self.memory.count(key) for key in keys], np.float64)
        rates = self._cluster_rates(None)
        return 1.02 - rates[list(keys)]

    def predict(self, rows: Rows) -> Floats:
        """Posterior means."""
        return self.success_probability(rows, None)

    def estimators(self) -> dict[str, History]:
        """Prompt, cluster and pool levels, and the stages of clusters."""
        return {"prompts": self._prompts, "clusters": self._clusters, "pool": self._pool, "stages": self._stages}

    def state_dict(self) -> dict[str, Any]:
        """Adds clusters and features, which come from the base policy and cannot be recomputed after training."""
        return super().state_dict() | {
            "labels": self.labels.copy(),
            "clustered": self.clustered,
            "dispersion": self._dispersion.sums.copy(),
            "linear": self._linear.state_dict(),
            "searches": self._searches.state_dict(),
            "unlocked": self._unlocked.copy(),
            "solved": self._solved.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; prompts that are new since then join cluster 0."""
        stored = len(state["estimators"]["clusters"]["visits"])
        if self.options.clusters is not None and stored != self.n_clusters:
            raise ConfigError(
                f"The stored state has {stored} clusters, this run {self.n_clusters}. "
                "Resume with the same number of clusters."
            )
        # The default number follows the size of the pool, which may have grown since.
        self.n_clusters, self.uses_features = stored, stored > 1
        self._clusters = History(stored, forgetting=self.options.forgetting, step=self.options.step)
        super().load_state_dict(state)
        rows = self._stored_rows(state)
        self.labels, self._solved = np.zeros(len(self.ids), np.int32), np.zeros(len(self.ids), np.bool_)
        self.labels[rows[rows >= 0]] = np.asarray(state["labels"])[rows >= 0]
        self._solved[rows[rows >= 0]] = np.asarray(state["solved"])[rows >= 0]
        self.clustered = bool(state["clustered"])
        self._dispersion.sums = np.asarray(state["dispersion"], dtype=np.float64).copy()
        self._linear.load_state_dict(state["linear"], rows)
        self._searches.load_state_dict(state["searches"])
        self._unlocked = np.asarray(state["unlocked"], np.bool_).copy()
        self._betas = None
