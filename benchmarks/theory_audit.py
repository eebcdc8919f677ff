"""The bounds of docs/theory.md against simulation: does anything beat them, and how much slack is left?

    python benchmarks/theory_audit.py        about two minutes on one core; writes docs/results/theory.json and theory.svg

T1: groups until the first mixed one, rolled out one rollout at a time. T2: categorical policies under random updates, gradient steps
and tilts of exactly the allowed divergence. T3: a Bayes-optimal identifier that probes where the next outcome tells most; skills drawn until enough have shown themselves. T5: waiting
times of the cheapest skills, of an adaptive rule and of random order. The tests run the same functions at smaller sizes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr import theory
from dopr.tasks.tiny import measured_success

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "results" / "theory.json"
FIGURE = ROOT / "docs" / "results" / "theory.svg"

Floats = NDArray[np.float64]
DELTA = 0.05


# -- T1 ------------------------------------------------------------------------------------------------------------------


def groups_to_first_signal(p: float, group: int, trials: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Groups until the first mixed one, drawn rollout by rollout, shape (trials,)."""
    waited = np.zeros(trials, np.int64)
    waiting = np.arange(trials)
    while waiting.size:
        waited[waiting] += 1
        right = (rng.random((waiting.size, group)) < p).sum(axis=1)
        waiting = waiting[(right == 0) | (right == group)]
    return waited


def quantile_interval(values: NDArray[np.int64], level: float) -> tuple[float, float, float]:
    """Empirical quantile with its 99.9 % interval from order statistics."""
    ordered, n = np.sort(values), len(values)
    half = 3.29 * np.sqrt(n * level * (1 - level))
    ranks = [int(np.clip(np.ceil(n * level + shift) - 1, 0, n - 1)) for shift in (0, -half, half)]
    low, middle, high = ordered[ranks[1]], ordered[ranks[0]], ordered[ranks[2]]
    return float(middle), float(low), float(high)


# -- T2 ------------------------------------------------------------------------------------------------------------------


def softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def divergence(new: Floats, old: Floats) -> float:
    """E_x KL(new || old) of policies of shape (prompts, answers)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(new > 0, new * np.log(new / old), 0.0)
    return float(terms.sum(axis=1).mean())


def step(logits: Floats, direction: Floats, kappa: float) -> Floats:
    """As far along ``direction`` as the divergence allows, and not farther."""
    old = softmax(logits)
    low, high = 0.0, 1.0
    while divergence(softmax(logits + high * direction), old) < kappa and high < 1e6:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        inside = divergence(softmax(logits + middle * direction), old) <= kappa
        low, high = (middle, high) if inside else (low, middle)
    return logits + low * direction


def travel(logits: Floats, right: Floats, kappa: float, updates: int, how: str, rng: np.random.Generator) -> Floats:
    """Mean success after 0, 1, ..., ``updates`` updates.

    Args:
        logits: Base policy, shape (prompts, answers).
        right: 1 where the answer is right, the same shape.
        kappa: Divergence of each update.
        updates: How many.
        how: ``tilt`` (every prompt's log-odds alike), ``gradient`` (of the mean success), ``one prompt`` (the gradient of one
            random prompt), ``noise``, or ``mixture`` (one of these at random each time).
        rng: Source of it.
    """
    means = [float((softmax(logits) * right).sum(axis=1).mean())]
    for _ in range(updates):
        kind = str(rng.choice(["tilt", "gradient", "one prompt", "noise"])) if how == "mixture" else how
        policy = softmax(logits)
        success = (policy * right).sum(axis=1, keepdims=True)
        gradient = policy * (right - success)
        one = np.zeros_like(gradient)
        chosen = rng.integers(len(logits))
        one[chosen] = gradient[chosen] + 1e-3 * right[chosen]
        direction = {
            "tilt": right,
            "gradient": gradient,
            "one prompt": one,
            "noise": rng.standard_normal(logits.shape),
        }[kind]
        logits = step(logits, direction, kappa)
        means.append(float((softmax(logits) * right).sum(axis=1).mean()))
    return np.array(means)


def random_policy(prompts: int, answers: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Logits and right answers (some prompts have several), with mean success below 0.6."""
    while True:
        logits = rng.standard_normal((prompts, answers)) * rng.uniform(0.3, 2)
        right = (rng.random((prompts, answers)) < rng.uniform(0.1, 0.4)).astype(np.float64)
        right[np.arange(prompts), rng.integers(answers, size=prompts)] = 1.0
        right[right.all(axis=1), 0] = 0.0
        if (softmax(logits) * right).sum(axis=1).mean() < 0.6:
            return logits, right


def ceiling(p0: float, kappa: float, updates: int) -> Floats:
    """Success that T2 allows after 0, 1, ..., ``updates`` updates."""
    out = [p0]
    for _ in range(updates):
        out.append(float(theory.reachable(out[-1], kappa)) if out[-1] < 1 else 1.0)
    return np.array(out)


# -- T3 ------------------------------------------------------------------------------------------------------------------


def rollouts_to_identify(
    strategies: int, plus: float, minus: float, delta: float, trials: int, rng: np.random.Generator
) -> int:
    """Rollouts after which a Bayes-optimal identifier names the right strategy with average error at most ``delta``.

    It probes the strategy whose outcome tells most about itself (myopic information-directed sampling) and names the
    strategy with the highest posterior; all trials run side by side.
    """
    right = rng.integers(strategies, size=trials)
    posterior = np.full((trials, strategies), 1 / strategies)
    rows = np.arange(trials)
    for rollouts in range(1, 100 * strategies):
        told = theory.entropy(np.clip(posterior * plus + (1 - posterior) * minus, 0, 1))
        told -= posterior * float(theory.entropy(plus)) + (1 - posterior) * float(theory.entropy(minus))
        probe = (told + 1e-12 * rng.random(told.shape)).argmax(axis=1)
        success = rng.random(trials) < np.where(probe == right, plus, minus)
        this, others = np.where(success, plus, 1 - plus), np.where(success, minus, 1 - minus)
        posterior *= others[:, None]
        posterior[rows, probe] *= np.where(others > 0, this / np.where(others > 0, others, 1), 0)
        settled = others == 0  # a success where no other strategy can succeed
        posterior[settled] = 0.0
        posterior[rows[settled], probe[settled]] = 1.0
        posterior /= posterior.sum(axis=1, keepdims=True)
        if 1 - posterior.max(axis=1).mean() <= delta:
            return rollouts
    raise RuntimeError("the identifier did not get there")


def rollouts_to_show(hazards: Floats, needed: int, how: str, trials: int, rng: np.random.Generator) -> Floats:
    """Rollouts until ``needed`` skills have shown themselves, shape (trials,).

    Args:
        hazards: Probability per rollout that a skill shows itself.
        needed: How many must.
        how: ``easiest`` (one after the other), ``random`` (a hidden skill drawn at random every time) or ``turns`` (the hidden
            one that was tried least).
        trials: How many.
        rng: Source of the draws.
    """
    spent = np.zeros(trials)
    hidden = np.ones((trials, len(hazards)), bool)
    tried = np.zeros((trials, len(hazards)))
    rows = np.arange(trials)
    while (rows := rows[(~hidden[rows]).sum(axis=1) < needed]).size:
        order = {
            "easiest": np.broadcast_to(hazards, (rows.size, len(hazards))),
            "random": rng.random((rows.size, len(hazards))),
            "turns": -tried[rows],
        }[how]
        skill = np.where(hidden[rows], order, -np.inf).argmax(axis=1)
        hidden[rows, skill] = rng.random(rows.size) >= hazards[skill]
        tried[rows, skill] += 1
        spent[rows] += 1
    return spent


# -- T5 ------------------------------------------------------------------------------------------------------------------


def rollouts_to_unlock(rates: Floats, target: float, how: str, trials: int, rng: np.random.Generator) -> Floats:
    """Rollouts until the mean success reaches ``target`` if a skill goes from its rate to 1 at its first success, shape (trials,).

    Args:
        rates: Base success per skill, all weighing the same.
        target: Mean success to reach.
        how: ``cheapest`` (the floor's own set, one skill after the other), ``adaptive`` (always the locked skill with the best
            gain per expected rollout) or ``random`` (a skill drawn at random every time).
        trials: How many.
        rng: Source of the draws.
    """
    k, chosen = len(rates), theory.elicitation_floor(rates, target).skills
    spent = np.zeros(trials)
    for trial in range(trials):
        locked = np.ones(k, bool)
        while (np.where(locked, rates, 1.0)).mean() < target - 1e-12:
            if how == "cheapest":
                skill = next(s for s in chosen if locked[s])
            elif how == "adaptive":
                skill = int(np.where(locked, rates * (1 - rates), -1).argmax())
            else:
                skill = int(rng.integers(k))
            if how != "random":
                spent[trial] += rng.geometric(rates[skill])
                locked[skill] = False
            else:
                spent[trial] += 1
                locked[skill] &= rng.random() >= rates[skill]
    return spent


# -- the audit -----------------------------------------------------------------------------------------------------------


def audit() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    first = []
    for p in np.geomspace(2e-3, 0.5, 10):
        bound = float(theory.first_signal_groups(p, 8, DELTA))
        first.append([float(p), bound, *quantile_interval(groups_to_first_signal(float(p), 8, 20_000, rng), 1 - DELTA)])
    kappa, updates = 0.01, 16
    walks, beaten = [], 0
    for how in ("noise", "one prompt", "gradient", "tilt", "mixture"):
        for _ in range(60):
            logits, right = random_policy(int(rng.integers(1, 9)), int(rng.integers(2, 12)), rng)
            means = travel(logits, right, kappa, updates, how, rng)
            allowed = ceiling(means[0], kappa, updates)
            beaten += bool((means > allowed + 1e-9).any())
            walks.append({"how": how, "share": float((means[-1] - means[0]) / (allowed[-1] - means[0]))})
    logits, right = np.log([[0.2, 0.5, 0.3]]), np.array([[1.0, 0.0, 0.0]])
    tilt = travel(logits, right, kappa, updates, "tilt", rng)
    uneven = np.array([v.rate for v in measured_success("latent-strategy").values()])
    logits = np.log(np.stack([uneven, 1 - uneven], axis=1))
    right = np.tile([1.0, 0.0], (len(uneven), 1))
    curves = {how: travel(logits, right, kappa, updates, how, rng).tolist() for how in ("gradient", "tilt", "mixture")}
    grid = np.linspace(uneven.mean() + 0.02, 0.97, 14)
    profile = [[theory.profile_updates(uneven, float(j), kappa), float(j)] for j in grid]
    small = [
        [float(j), float(theory.travel_updates(uneven.mean(), j, 1e-4)), theory.profile_updates(uneven, j, 1e-4)]
        for j in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ]
    identify = []
    for plus, minus in ((1.0, 0.0), (0.9, 0.1)):
        for m in (2, 4, 8, 16, 32, 64, 128, 256):
            used = rollouts_to_identify(m, plus, minus, DELTA, 4000, rng)
            nats = float(theory.identification_information(m, DELTA) / theory.capacity(plus, minus))
            identify.append([plus, minus, m, nats, float(theory.identification_rollouts(m, plus, minus, DELTA)), used])
    unlock = []
    for target in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        floor = theory.elicitation_floor(uneven, target).rollouts
        single = theory.elicitation_floor(uneven, target, delta=DELTA).rollouts
        spent = {how: rollouts_to_unlock(uneven, target, how, 2000, rng) for how in ("cheapest", "adaptive", "random")}
        unlock.append({"target": target, "floor": floor, "single": single,
                       **{how: [float(s.mean()), float(np.quantile(s, DELTA))] for how, s in spent.items()}})  # fmt: skip
    show = []
    for needed in (1, 4, 8, 13, 16):
        spent = {how: rollouts_to_show(uneven, needed, how, 4000, rng) for how in ("easiest", "random", "turns")}
        show.append({"needed": needed, "bound": theory.drawn_rollouts(uneven, needed, DELTA),
                     **{how: float(np.quantile(s, 1 - DELTA, method="inverted_cdf")) for how, s in spent.items()}})  # fmt: skip
    return {
        "first_signal": first, "kappa": kappa, "walks": walks, "beaten": beaten, "tilt": tilt.tolist(),
        "tilt_ceiling": ceiling(0.2, kappa, updates).tolist(), "world": curves,
        "world_ceiling": ceiling(float(uneven.mean()), kappa, updates).tolist(), "profile": profile, "profile_small": small,
        "identify": identify, "show": show, "unlock": unlock,
    }  # fmt: skip


def draw(found: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dopr"
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(11, 8))
    ax = axes[0][0]
    p, bound, middle, low, high = np.array(found["first_signal"]).T
    ax.plot(p, bound, "k-", label="T1: groups for 95 % (exact)")
    ax.errorbar(p, middle, [middle - low, high - middle], fmt="o", ms=4, color="C0", label="simulated, 99.9 % interval")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="base success p (every prompt alike)",
        ylabel="groups of 8",
        title="T1 first signal",
    )
    ax = axes[0][1]
    ax.plot(found["world_ceiling"], "k-", label="T2 from the mean")
    ax.plot(*np.array(found["profile"]).T, "k--", label="T2 from every skill's success")
    for colour, (how, label) in enumerate(
        {"tilt": "tilt of all", "gradient": "gradient of the mean", "mixture": "random mixture"}.items()
    ):
        ax.plot(found["world"][how], ".-", color=f"C{colour}", lw=1, label=label)
    ax.set(
        xlabel="updates of 0.01 nats", ylabel="mean success", title="T2 travel (skills of latent-strategy)", ylim=(0, 1)
    )
    ax = axes[1][0]
    rows = np.array(found["identify"])
    for colour, plus in enumerate((1.0, 0.9)):
        part = rows[rows[:, 0] == plus]
        ax.plot(
            part[:, 2],
            part[:, 5],
            "o",
            color=f"C{colour}",
            label=f"Bayes-optimal, success {plus:g} against {1 - plus:.1g}",
        )
        ax.plot(part[:, 2], part[:, 4], "-", color=f"C{colour}", label="T3")
        ax.plot(part[:, 2], part[:, 3], ":", color=f"C{colour}", label="by information alone (ln M)")
    ax.set(
        xscale="log", yscale="log", xlabel="strategies M", ylabel="rollouts to error 0.05", title="T3 identification"
    )
    ax = axes[1][1]
    target = [row["target"] for row in found["unlock"]]
    ax.plot(target, [row["floor"] for row in found["unlock"]], "k-", label="T5, expected")
    ax.plot(target, [row["single"] for row in found["unlock"]], "k:", label="T5, 5 % luckiest runs")
    for colour, how in enumerate(("cheapest", "adaptive", "random")):
        means, lucky = np.array([row[how] for row in found["unlock"]]).T
        ax.plot(target, means, "o-", ms=4, lw=1, color=f"C{colour}", label=f"{how}: mean")
        ax.plot(target, lucky, "^", ms=4, color=f"C{colour}", alpha=0.6)
    ax.set(
        yscale="log",
        xlabel="mean success to reach",
        ylabel="rollouts",
        title="T5 elicitation (triangles: 5 % quantile)",
    )
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=7)
    fig.tight_layout()
    fig.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    found = audit()
    STORE.write_text(json.dumps(found) + "\n")
    draw(found)
    shares = {
        how: [w["share"] for w in found["walks"] if w["how"] == how] for how in {w["how"] for w in found["walks"]}
    }
    print(f"T2: {found['beaten']} of {len(found['walks'])} random walks beat it; share of the allowed way:")
    for how, values in sorted(shares.items()):
        print(f"  {how}: median {np.median(values):.2f}, most {max(values):.3f}")
    print(
        "T1:",
        *(f"p {p:.3g}: {b:.0f} against {m:.0f} [{lo:.0f}, {hi:.0f}]" for p, b, m, lo, hi in found["first_signal"]),
        sep="\n  ",
    )
    print(
        "T3:",
        *(
            f"{a:g}/{b:g} M {m:g}: information {n:.1f}, T3 {t:.0f}, Bayes {u:g}"
            for a, b, m, n, t, u in found["identify"]
        ),
        sep="\n  ",
    )
    print("T3, drawn:", *(str(row) for row in found["show"]), sep="\n  ")
    print("T5:", *(str(row) for row in found["unlock"]), sep="\n  ")


if __name__ == "__main__":
    main()
