from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli_kit import dopr, write_jsonl
from dopr.tasks.data_check import check_data
from dopr.tasks.overlap import N, overlaps, words_of
from dopr.tasks.problems import load_problems

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"

GOOD = [
    {"id": "a", "question": "What is one plus one, in words and in figures?", "answer": "2"},
    {"id": "b", "question": "Simplify x + x as far as it goes, please.", "answer": "2x"},
]


def test_a_clean_file_is_clean(tmp_path):
    write_jsonl(tmp_path / "good.jsonl", GOOD)
    output = dopr(tmp_path, "data", "check", "good.jsonl")
    assert "2 rows; prompt 'question', answer 'answer', id 'id'" in output
    assert "read as number 1, expression 1" in output
    assert "Nothing wrong found." in output


BAD = [
    *GOOD,
    {"id": "a", "question": "Another question with the id of the first one.", "answer": "3"},
    {"id": "d", "question": GOOD[1]["question"], "answer": "2x"},
    {"id": "e", "question": GOOD[0]["question"].replace(" ", "\n "), "answer": "3"},
    {"id": "f", "question": "", "answer": "3"},
    {"id": "g", "question": "A gold that is missing altogether.", "answer": None},
    {"id": "h", "question": "A gold that holds nothing at all.", "answer": "  "},
    {"id": "i", "question": "A gold cut off in the middle of its formula.", "answer": "\\frac{1}{2}-\\frac{3"},
    {"id": "j", "question": "A gold that is a lone operator.", "answer": "\\div"},
    {"id": "k", "question": "long " * 100, "answer": "1"},
]


def test_every_kind_of_bad_row_is_named(tmp_path):
    write_jsonl(tmp_path / "bad.jsonl", BAD)
    output = dopr(tmp_path, "data", "check", "bad.jsonl", "--max-characters", "400", "--json", code=1)
    found = {(f["kind"], f["where"]) for f in json.loads(output)["findings"]}
    assert found == {
        ("duplicate-id", "line 3"), ("repeat", "line 4"), ("conflict", "line 5"), ("row", "line 6"), ("gold", "line 7"),
        ("gold", "line 8"), ("gold", "line 9"), ("unread", "line 10"), ("length", "line 11"),
    }  # fmt: skip
    text = dopr(tmp_path, "data", "check", "bad.jsonl", "--show", "1", code=1)
    assert "line 5 (e): the prompt of line 1 with the answer '3' against '2'" in text
    assert "and 2 more (--show 0 names all)" in text


def test_prompts_that_differ_in_case_alone_are_two_problems(tmp_path):
    rows = [
        {"id": x, "question": f"What is the molar mass of {x} in g?", "answer": n} for x, n in (("Co", 59), ("CO", 28))
    ]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert "Nothing wrong found." in dopr(tmp_path, "data", "check", "x.jsonl")


def test_half_a_surrogate_pair_is_named_by_its_row_and_stops_training(tmp_path):
    rows = [
        {"id": "a\ud800", "question": "What is 2+3?", "answer": "5"},
        {"id": "b", "question": "What is 2+4?", "answer": "6\ud800"},
    ]
    write_jsonl(tmp_path / "x.jsonl", rows)
    output = dopr(tmp_path, "data", "check", "x.jsonl", code=1)
    assert "line 1: the id (column 'id') is 'a\\ud800', with half of a surrogate pair" in output
    assert "line 2 (b): the gold cannot be checked: it holds half of a surrogate pair" in output
    output = dopr(tmp_path, "train", "--data", "x.jsonl", "--model", "tiny", code=2)
    assert "line 1: the id (column 'id') is 'a\\ud800'" in output
    assert "line 2: the answer (column 'answer') cannot be checked: it holds half" in output
    assert "Traceback" not in output


SAME = {"id": "a", "question": "Write f, please.", "answer": "1", "tests": ["assert f(1) == 1"]}


@pytest.mark.parametrize(
    ("again", "kinds", "refused"),
    [
        (SAME, ["repeat"], ""),
        (SAME | {"answer": "2"}, ["conflict"], "line 2: its id 'a' is also that of line 1"),
        (SAME | {"tests": ["assert f(1) == 2"]}, ["conflict"], "line 2: its id 'a' is also that of line 1"),
        (
            SAME | {"question": "Write  f, please."},
            ["duplicate-id", "repeat"],
            "line 2: its id 'a' is also that of line 1",
        ),
        (SAME | {"question": "Write g, please."}, ["duplicate-id"], "line 2: its id 'a' is also that of line 1"),
        (SAME | {"id": "b"}, ["repeat"], ""),
    ],
)
def test_repeats_are_found_as_training_takes_them(tmp_path, again, kinds, refused):
    write_jsonl(tmp_path / "x.jsonl", [SAME, again])
    check = check_data(str(tmp_path / "x.jsonl"), reward="exact")
    assert [(f.kind, f.where) for f in check.findings] == [(kind, "line 2") for kind in kinds]
    bad: list[str] = []
    load_problems(str(tmp_path / "x.jsonl"), on_bad=bad.append)
    assert [text.split(";")[0] for text in bad] == ([refused] if refused else [])


def test_a_prompt_that_leaves_out_a_part_of_the_problem_is_named_unless_it_was_asked_for(tmp_path):
    rows = [{"instruction": f"Double {k}.", "input": "", "output": str(2 * k)} for k in (3, 4)]
    write_jsonl(tmp_path / "x.jsonl", [*rows, {"instruction": "Double it.", "input": "5", "output": "10"}])
    output = dopr(tmp_path, "data", "check", "x.jsonl", code=1)
    assert "1 prompts that are only a part of the problem" in output
    assert (
        "line 3: the column 'input' holds a part of the problem that the prompt (column 'instruction') does not"
        in output
    )
    dopr(tmp_path, "data", "check", "x.jsonl", "--prompt-column", "instruction", code=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"question": "a"', "is not valid JSON"),
        ("", "holds no problems"),
        ('{"text": "a", "label": "b"}', "none is a prompt"),
        ('[\n{"prompt": "a", "answer": "b"}\n]', "Rename it to broken.json"),
    ],
)
def test_what_cannot_be_read_ends_with_code_2(tmp_path, content, words):
    (tmp_path / "broken.jsonl").write_text(content)
    output = dopr(tmp_path, "data", "check", "broken.jsonl", code=2)
    assert words in output
    assert "Traceback" not in output


def test_another_separator_than_the_comma_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("question;answer\nWhat is 2 + 3?;5\n")
    output = dopr(tmp_path, "data", "check", "x.csv", code=2)
    assert "The separator must be a comma" in output
    assert "--prompt-column" not in output


def test_a_missing_file_and_a_wrong_verifier_are_explained(tmp_path):
    assert "There is no file" in dopr(tmp_path, "data", "check", "absent.jsonl", code=2)
    write_jsonl(tmp_path / "good.jsonl", GOOD)
    output = dopr(tmp_path, "data", "check", "good.jsonl", "--reward", "maths", code=2)
    assert "There is no reward 'maths'. Did you mean 'math'? Known: A&B, choice, code, code:partial, exact," in output
    assert "gym, math, math:RULES, module:function," in output


def test_overlap_with_an_evaluation_file_is_found(tmp_path):
    held = [
        {
            "question": "A train travels 270 miles in 3 hours. How many hours for 180 miles more at the same rate?",
            "answer": "2",
        },
        {
            "question": "Tom has five boxes with seven pencils each and gives nine pencils away. How many are left?",
            "answer": "26",
        },
    ]
    rows = [
        {
            "question": "  tom has five BOXES with seven pencils each, and gives nine pencils away! How many are left?",
            "answer": "26",
        },
        {
            "question": "Yesterday a train travels 270 miles in 3 hours. How many hours for 190 miles more at the same rate?",
            "answer": "2",
        },
        {
            "question": "Something else entirely, about the sum of the first hundred odd numbers and their squares.",
            "answer": "1",
        },
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "test.jsonl", held)
    output = dopr(
        tmp_path, "data", "check", "train.jsonl", "--against", "test.jsonl", "--overlap", "0.5", "--json", code=1
    )
    check = json.loads(output)
    assert [f["where"] for f in check["findings"]] == ["line 1", "line 2"]
    assert check["against"] == {"file": "test.jsonl", "rows": 2, "same": 1, "near": 1, "least_overlap": 0.5}
    assert "test.jsonl, line 2" in check["findings"][0]["text"]
    # Of a source with splits the test split is meant, whatever is checked, unless another is asked for.
    (tmp_path / "both").mkdir()
    write_jsonl(tmp_path / "both" / "train.jsonl", rows[2:])
    write_jsonl(tmp_path / "both" / "test.jsonl", held)
    command = ["data", "check", "train.jsonl", "--against", "both", "--json"]
    assert json.loads(dopr(tmp_path, *command, code=1))["against"]["rows"] == 2
    check = json.loads(dopr(tmp_path, *command, "--against-split", "train", code=1))
    assert (check["against"]["rows"], check["against"]["same"]) == (1, 1)
    (tmp_path / "both" / "test.jsonl").unlink()
    assert json.loads(dopr(tmp_path, *command, code=1))["against"]["rows"] == 1


def test_a_broken_test_split_is_an_error_and_the_split_that_was_read_is_named(tmp_path):
    write_jsonl(tmp_path / "here.jsonl", GOOD)
    (tmp_path / "both").mkdir()
    write_jsonl(tmp_path / "both" / "train.jsonl", GOOD[:1])
    command = ["data", "check", "here.jsonl", "--against", "both"]
    assert "both, split train: 1 rows; 1 are here whole" in dopr(tmp_path, *command, code=1)
    (tmp_path / "both" / "test.jsonl").write_text('{"question": "q", "answer": 1}\n{"question": "x", "answer": \n')
    assert "test.jsonl, line 2: it is not valid JSON" in dopr(tmp_path, *command, code=2)
    (tmp_path / "both" / "test.jsonl").write_text("")
    assert "holds no problems" in dopr(tmp_path, *command, code=2)
    write_jsonl(tmp_path / "both" / "test.jsonl", GOOD)
    assert "both, split test: 2 rows; 2 are here whole" in dopr(tmp_path, *command, code=1)
    assert "has no split 'dev'" in dopr(tmp_path, *command, "--against-split", "dev", code=2)
    (tmp_path / "plain").mkdir()
    write_jsonl(tmp_path / "plain" / "a.jsonl", GOOD)
    assert "split" not in check_data(str(tmp_path / "here.jsonl"), against=str(tmp_path / "plain")).against


@pytest.mark.parametrize(
    ("here", "there", "same", "near"),
    [
        ("小明有三个苹果,妈妈又给了他五个苹果,他一共有几个苹果?", "今天是星期一,后天是星期几?", 0, 0),
        (
            "小明有三个苹果,妈妈又给了他五个苹果,他一共有几个苹果?",
            "小明有三个苹果,妈妈又给了他五个梨子,他一共有几个苹果?",
            0,
            1,
        ),
        ("Сколько будет два плюс три, если сложить их вместе?", "Сколько яблок осталось на столе?", 0, 0),
        (
            "Сколько будет два плюс три, если сложить их вместе?",
            "СКОЛЬКО будет два плюс три если сложить их вместе",
            1,
            0,
        ),
        ("🍎 + 🍎 = ?", "🍐 - 🍐 = ?", 0, 0),
        ("???", "...", 0, 0),
        ("???", "???", 1, 0),
        ("What is 5 + 3?", "What is 5 - 3?", 0, 0),
        ("What is 5 + 3?", "what is  5 + 3", 1, 0),
        ("What is $5+3$?", "What is 5 + 3?", 0, 1),
        ("What is 5!", "What is 5?", 0, 0),
        (r"Find the derivative of $\sin x$.", r"Find the derivative of $\cos x$.", 0, 0),
        (r"Find the value of $\left(\frac{3}{4}\right)$ of 8.", "Find the value of (3/4) of 8.", 0, 1),
    ],
)
def test_only_one_wording_is_whole_and_words_of_any_script_count(tmp_path, here, there, same, near):
    for name, text in (("here", here), ("there", there)):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"question": text, "answer": "8"}])
    check = check_data(str(tmp_path / "here.jsonl"), against=str(tmp_path / "there.jsonl"))
    assert (check.against["same"], check.against["near"]) == (same, near)


def test_words_are_those_of_any_script_without_layout():
    text = r"Шёл 3.5 км, 走了 \text{Ärger} $\dfrac{\sin x}{2\pi}\right)$ ピカ"
    assert words_of(text) == "шёл 3.5 км 走 了 ärger sin x 2 pi ピ カ".split()  # noqa: SIM905


def test_reference_solutions_are_run_against_their_tests(tmp_path):
    rows = [
        {"question": "Write f that adds 1.", "tests": ["assert f(1) == 2"], "solution": "def f(x): return x + 1"},
        {"question": "Write f that adds 2.", "tests": ["assert f(1) == 3"], "solution": "def f(x): return x - 2"},
        {"question": "Write f that adds 3.", "tests": ["f of 1 is four"], "solution": "def f(x): return x + 3"},
    ]
    write_jsonl(tmp_path / "code.jsonl", rows)
    check = check_data(str(tmp_path / "code.jsonl"))
    assert check.reward == "code"
    assert [(f.kind, f.where) for f in check.findings if "tests" in f.text] == [("gold", "line 3")]
    assert ("gold", "line 2") in [(f.kind, f.where) for f in check.findings]
    assert "line 1" not in [f.where for f in check.findings]


def test_golds_are_counted_by_where_they_stand(tmp_path):
    golds = ["2+3=5\n#### 5", "so \\boxed{7}", "so \\fbox{7}", "so \\boxed 7", "9", 11.0]
    write_jsonl(tmp_path / "x.jsonl", [{"question": f"Question {k}?", "answer": gold} for k, gold in enumerate(golds)])
    assert check_data(str(tmp_path / "x.jsonl")).extraction == {"####": 1, "boxed": 3, "as it stands": 2}


def test_worked_solutions_without_a_mark_are_named(tmp_path):
    golds = ["So there are 4 people in front of him, and 5 with himself.", "We have $2+3 = \\boxed 5$."]
    write_jsonl(tmp_path / "x.jsonl", [{"question": f"Question {k}?", "answer": gold} for k, gold in enumerate(golds)])
    (finding,) = check_data(str(tmp_path / "x.jsonl")).findings
    assert (finding.kind, finding.where) == ("gold", "line 1")
    assert "is a sentence" in finding.text


TESTED = {"prompt": "Write f.", "tests": ["assert f(1) == 1"]}
LACKING: dict[str, tuple[list[dict[str, object]], list[str], list[tuple[str, str]], str]] = {
    "an unusual name": ([{"prompt": "Double 5?", "response": "10"}], [], [("column", "all rows")], "'prompt', 'response'"),
    "a space in it": ([{"prompt": "Double 5?", " answer": "10"}], ["--reward", "math"], [("column", "all rows")], "' answer'"),
    "code without tests": ([TESTED, {"prompt": "Write g."}], ["--reward", "code"], [("gold", "line 2")], "no column 'tests'"),
    "some without tests": ([TESTED, {"prompt": "Write g."}], [], [("gold", "line 2")], "no column 'tests'"),
    "unreadable tests": ([TESTED, {"prompt": "Write g.", "tests": "(("}], [], [("gold", "line 2")], "tests cannot be read"),
    "tests and null": ([TESTED | {"answer": None}], [], [], "'code'"),
    "tests alone": ([TESTED], [], [], "'code'"),
    "no answer needed": ([{"prompt": "Write a poem."}], ["--reward", "format:boxed"], [], "'verified': False"),
}  # fmt: skip


@pytest.mark.parametrize("case", LACKING)
def test_what_training_would_miss_is_a_finding_and_what_it_would_not_is_none(tmp_path, case):
    rows, arguments, findings, words = LACKING[case]
    write_jsonl(tmp_path / "x.jsonl", rows)
    check = json.loads(dopr(tmp_path, "data", "check", "x.jsonl", "--json", *arguments, code=1 if findings else 0))
    assert [(f["kind"], f["where"]) for f in check["findings"]] == findings
    assert words in str(check)


def test_golds_that_no_verifier_was_given_are_not_said_to_be_checked(tmp_path):
    write_jsonl(tmp_path / "good.jsonl", GOOD)
    (tmp_path / "mine.py").write_text("def r(completions, **columns):\n    return [1.0] * len(completions)\n")
    output = dopr(tmp_path, "data", "check", "good.jsonl", "--reward", "mine:r")
    assert "golds: not checked, since the form that mine:r wants is not known" in output
    assert "verifier" not in output
    assert "golds: verifier math" in dopr(tmp_path, "data", "check", "good.jsonl")


def test_advice_is_about_the_file_that_is_meant(tmp_path):
    write_jsonl(tmp_path / "good.jsonl", GOOD)
    write_jsonl(tmp_path / "other.jsonl", [{"text": "What?"}])
    output = dopr(tmp_path, "data", "check", "good.jsonl", "--against", "other.jsonl", code=2)
    assert "other.jsonl has the columns 'text', and none is a prompt" in output
    assert "Rename the one that is in other.jsonl." in output
    for source in ("gym:chain_sum", "world:mixed"):
        assert f"{source} is generated together with its answers" in dopr(tmp_path, "data", "check", source, code=2)


def slow_overlaps(first, second, least):
    """The definition, literally."""

    def grams(text):
        words = words_of(text)
        if 0 < len(words) < N:
            return {tuple(words)}
        return {tuple(words[k : k + N]) for k in range(len(words) - N + 1)}

    found = {}
    for i, a in enumerate(first):
        shares = [(len(grams(a) & grams(b)) / len(grams(b)), j) for j, b in enumerate(second) if grams(b)]
        best = max((share for share, _ in shares), default=0.0)
        if best >= least:
            found[i] = best
    return found


WORDS = st.lists(st.sampled_from("a b c d e 1 2".split()), max_size=14).map(" ".join)  # noqa: SIM905


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6), st.sampled_from([0.2, 0.5, 1.0]))
def test_overlaps_equal_their_definition(first, second, least):
    pairs = overlaps(first, second, least=least)
    assert {p.first: pytest.approx(p.overlap) for p in pairs} == slow_overlaps(first, second, least)


def test_overlap_is_found_in_large_files(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"w{chr(97 + k % 26)}{chr(97 + k // 26 % 26)}{chr(97 + k // 676)}" for k in range(5000)]
    texts = [" ".join(words[i] for i in rng.integers(0, 5000, 30)) for _ in range(20_000)]
    pairs = overlaps(texts, [*texts[5000:5100], "nothing of the kind at all here"], least=0.9)
    assert sorted(p.first for p in pairs) == list(range(5000, 5100))


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
def test_the_empty_and_the_cut_off_gold_of_a_published_training_set_are_named():
    check = check_data(str(REAL / "dsr_sub.parquet"))
    assert [(f.where, f.id) for f in check.findings if f.kind == "gold"] == [("row 266", "265"), ("row 1188", "1187")]
    assert check.rows == 1209
    assert check.reading["number"] > 900
