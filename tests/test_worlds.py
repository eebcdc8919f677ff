from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopr.errors import ConfigError
from dopr.tasks.verifiers import world
from dopr.tasks.world_text import STRATEGIES, LatentSkill, argument_of, latent_arguments
from dopr.tasks.worlds import WORLD_NAMES, load_world, world_info, world_skills

worlds = pytest.mark.parametrize("name", WORLD_NAMES)


def skill_of(problem):
    return next(s for s in world_skills(problem.extra["world"]) if s.name == problem.extra["skill"])


def success(problem) -> float:
    """Designed success of the base policy on one problem, by brute force over its completions and the verifier."""
    completions = skill_of(problem).completions(problem.prompt)
    rewards = world()(list(completions), answer=[problem.answer] * len(completions))
    return sum(p for p, reward in zip(completions.values(), rewards, strict=True) if reward == 1)


@worlds
def test_the_same_seed_gives_the_same_problems_and_another_seed_gives_others(name):
    assert load_world(name, seed=3) == load_world(name, seed=3)
    assert [p.prompt for p in load_world(name, seed=3)] != [p.prompt for p in load_world(name, seed=4)]


@worlds
@given(sizes=st.tuples(st.integers(1, 300), st.integers(1, 300)), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_a_longer_list_starts_with_the_shorter_one(name, sizes, seed):
    short, long = (load_world(name, size=n, seed=seed, split="test") for n in sorted(sizes))
    assert (len(short), len(long)) == tuple(sorted(sizes))
    assert long[: len(short)] == short


@worlds
def test_train_and_test_prompts_are_disjoint_whatever_the_seeds(name):
    train = {argument_of(p.prompt) for seed in range(3) for p in load_world(name, seed=seed)}
    test = {argument_of(p.prompt) for seed in range(3) for p in load_world(name, split="test", seed=seed)}
    assert not train & test


@worlds
def test_default_sizes_are_as_stated_and_no_prompt_repeats(name):
    info = world_info(name)
    for split, size in (("train", info.train_size), ("test", info.test_size)):
        problems = load_world(name, split=split)
        assert len(problems) == len({p.id for p in problems}) == len({p.prompt for p in problems}) == size


@worlds
def test_an_id_stands_for_one_prompt_in_every_size_split_and_seed(name):
    prompts: dict[str, str] = {}
    for split in ("train", "test"):
        for seed in range(4):
            for problem in load_world(name, split=split, seed=seed):
                assert prompts.setdefault(problem.id, problem.prompt) == problem.prompt
    assert len(set(prompts.values())) == len(prompts)


@worlds
def test_frequencies_are_exact_in_whole_blocks(name):
    info = world_info(name)
    problems = load_world(name, size=7 * info.block)
    counts = Counter(p.extra["skill"] for p in problems)
    assert {s.name: s.frequency for s in info.skills} == {k: n / len(problems) for k, n in counts.items()}
    assert sum(s.frequency for s in info.skills) == pytest.approx(1)


@worlds
def test_the_stated_base_success_is_that_of_the_designed_completions(name):
    info = world_info(name)
    problems = load_world(name, size=30 * info.block)
    for skill in info.skills:
        rates = [success(p) for p in problems if p.extra["skill"] == skill.name]
        assert sum(rates) / len(rates) == pytest.approx(skill.base_success)


@worlds
def test_designed_completions_are_a_distribution_that_fits_the_token_limit(name):
    info = world_info(name)
    for problem in load_world(name, size=5 * info.block):
        completions = skill_of(problem).completions(problem.prompt)
        assert sum(completions.values()) == pytest.approx(1)
        assert min(completions.values()) > 0
        assert max(map(len, completions)) + 1 <= info.max_completion_tokens


@worlds
def test_some_designed_completion_of_every_problem_is_right_and_every_gold_passes_its_verifier(name):
    for split in ("train", "test"):
        for problem in load_world(name, split=split):
            assert success(problem) > 0
            assert world()([f"={problem.answer}", problem.answer, "=x"], answer=[problem.answer] * 3) == [1, 1, 0]


def test_a_wrong_strategy_is_never_right_on_any_latent_argument():
    arguments = latent_arguments()
    assert len(arguments) > 5000
    for argument in arguments:
        assert len({strategy(argument) for strategy in STRATEGIES.values()}) == len(STRATEGIES)


def test_a_guess_is_right_one_time_in_ten_and_thinking_always():
    (skill,) = world_skills("shared-skill")
    for problem in load_world("shared-skill"):
        completions = skill.completions(problem.prompt)
        thought = {text: p for text, p in completions.items() if not text.startswith("=")}
        assert {text.rsplit("=", 1)[-1] for text in thought} == {problem.answer}
        guesses = {text: p for text, p in completions.items() if text.startswith("=")}
        assert guesses[f"={problem.answer}"] / sum(guesses.values()) == pytest.approx(skill.p_minus)


def test_the_sum_answer_is_the_last_digit_of_the_sum():
    (skill,) = world_skills("shared-skill")
    assert skill.answer("sum 389:") == "0"
    assert skill.answer("sum 99999:") == "5"


def test_latent_strategy_has_sixteen_skills_that_use_all_six_strategies_with_falling_propensity():
    skills = world_skills("latent-strategy")
    rates = [s.base_success for s in skills]
    assert len(skills) == 16
    assert {s.right for s in skills if isinstance(s, LatentSkill)} == set(STRATEGIES)
    assert (rates[0], rates[-1]) == (0.6, 0.01)
    assert rates == sorted(rates, reverse=True)


def test_a_word_stands_for_the_same_skill_in_every_world():
    known: dict[str, LatentSkill] = {}
    for name in WORLD_NAMES:
        skills = [s for s in world_skills(name) if isinstance(s, LatentSkill)]
        assert len({s.word for s in skills}) == len(skills)
        assert len({s.name for s in skills}) == len(skills)
        for skill in skills:
            assert replace(known.setdefault(skill.word, skill), name=skill.name) == skill
    assert len(known) == 16 + 24  # the words that the packaged checkpoint was trained on


@pytest.mark.parametrize(
    ("name", "mean", "shares"),
    [("mostly-hopeless", 0.0488, {"hopeless": 0.75, "mastered": 0}), ("mostly-mastered", 0.744, {"mastered": 0.75})],
)
def test_three_problems_in_four_leave_nothing_or_hardly_anything_to_learn_from(name, mean, shares):
    info = world_info(name)
    assert info.block == 32
    assert info.mean_base_success == pytest.approx(mean, abs=0.0005)
    hopeless = sum(s.frequency for s in info.skills if s.base_success <= 0.015)
    mastered = sum(s.frequency for s in info.skills if s.base_success >= 0.85)
    for kind, share in shares.items():
        assert {"hopeless": hopeless, "mastered": mastered}[kind] == share


def test_mixed_is_as_uneven_as_a_real_problem_set():
    problems = load_world("mixed", size=20 * world_info("mixed").block)
    rates = [success(p) for p in problems]
    n, G = len(rates), 8
    all_right = sum(p**G for p in rates) / n
    all_wrong = sum((1 - p) ** G for p in rates) / n
    assert sum(rates) / n == pytest.approx(0.33, abs=0.02)
    assert all_right == pytest.approx(0.08, abs=0.02)
    assert all_wrong == pytest.approx(0.36, abs=0.02)
    assert 1 - all_right - all_wrong == pytest.approx(0.56, abs=0.02)


def test_an_unknown_world_is_named_with_the_closest_known_one():
    for ask in (load_world, world_info, world_skills):
        with pytest.raises(ConfigError, match=r"no packaged world 'mixd'. Did you mean 'mixed'\? Known: latent"):
            ask("mixd")


@pytest.mark.parametrize(
    ("settings_", "text"),
    [
        ({"split": "tset"}, r"no split 'tset'. Did you mean 'test'\?"),
        ({"size": 0}, "Ask for 1 to"),
        ({"size": 10**9}, r"asked for 1,000,000,000 train problems, which it cannot give. Ask for 1 to 2,628"),
        ({"seed": -1}, "seed cannot be negative"),
    ],
)
def test_impossible_requests_say_what_is_possible(settings_, text):
    with pytest.raises(ConfigError, match=text):
        load_world("shared-skill", **settings_)


@worlds
def test_the_largest_size_the_error_names_can_be_had(name):
    with pytest.raises(ConfigError) as caught:
        load_world(name, split="test", size=10**9)
    largest = int(str(caught.value).split("1 to ")[1].rstrip(".").replace(",", ""))
    problems = load_world(name, split="test", size=largest)
    assert len({p.prompt for p in problems}) == largest
