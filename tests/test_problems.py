from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopr.errors import ConfigError, DataError
from dopr.tasks.columns import ANSWER_COLUMNS, PROMPT_COLUMNS
from dopr.tasks.passed_on import RESERVED
from dopr.tasks.problems import Problem, load_problems, prompt_id, split_holdout, to_rows
from dopr.tasks.templates import TEMPLATES, render_prompt

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
QA = [{"question": "1+1?", "answer": "2"}, {"question": "2+3?", "answer": "5"}]
SOLVED = [{"role": "user", "content": "0+1?"}, {"role": "assistant", "content": "It is 1."}]


def jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def problem(prompt="1+1?", answer="2", **extra) -> Problem:
    return Problem(id=prompt_id(prompt), prompt=prompt, answer=answer, extra=extra)


def error_of(source: object, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_problems(str(source), **options)
    return str(caught.value)


# -- formats ---------------------------------------------------------------------------------------------------------


def write_all_formats(folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    jsonl(folder / "a.jsonl", QA)
    (folder / "b.json").write_text(json.dumps(QA))
    (folder / "c.json").write_text(json.dumps({"data": QA}, indent=1))
    (folder / "d.json").write_text("\n".join(map(json.dumps, QA)))
    with (folder / "e.csv").open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, ["question", "answer"])
        writer.writeheader()
        writer.writerows(QA)
    pq.write_table(pa.Table.from_pylist(QA), folder / "f.parquet")
    return sorted(folder.iterdir())


def test_every_file_format_gives_the_same_problems(tmp_path):
    loaded = [load_problems(str(path)) for path in write_all_formats(tmp_path)]
    assert len(loaded) == 6
    assert all(problems == loaded[0] for problems in loaded)
    assert [(p.prompt, p.answer, p.extra) for p in loaded[0]] == [("1+1?", "2", {}), ("2+3?", "5", {})]


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_golds_of_low_precision_are_read_as_they_were_written(tmp_path, kind):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    golds = np.array([0.1, 12.7, 3.0], kind)
    table = pa.table({"question": ["a", "b", "c"], "answer": golds})
    pq.write_table(table, tmp_path / "a.parquet")
    Dataset(table).save_to_disk(tmp_path / "saved")
    for name in ("a.parquet", "saved"):
        assert [p.answer for p in load_problems(str(tmp_path / name))] == ["0.1", "12.7", "3"]


def test_a_missing_gold_of_low_precision_stays_missing(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"question": ["a", "b"], "answer": pa.array([0.1, None], pa.float32())}), tmp_path / "a.parquet"
    )
    assert "row 2: the answer (column 'answer') cannot be checked: it is missing" in error_of(tmp_path / "a.parquet")


def test_a_column_that_cannot_be_read_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    bytes_as_text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    late = pa.array([253_402_300_800_000], pa.timestamp("ms"))  # the year 10000
    cases = {
        "the column 'note' holds what cannot be read": pa.table(
            {"question": ["q"], "answer": [1], "note": bytes_as_text}
        ),
        "the column 'when' holds what cannot be read": pa.table({"question": ["q"], "answer": [1], "when": late}),
        "two columns have the same name ('question', 'answer', 'answer')": pa.table(
            [["q"], [1], [2]], ["question", "answer", "answer"]
        ),
    }
    for words, table in cases.items():
        pq.write_table(table, tmp_path / "a.parquet")
        assert words in error_of(tmp_path / "a.parquet")
        if "when" in table.column_names:
            Dataset(table).save_to_disk(tmp_path / "saved")
            assert words in error_of(tmp_path / "saved")


def test_saved_datasets_load_with_their_split(tmp_path):
    from datasets import Dataset, DatasetDict

    train, test = Dataset.from_list(QA[:1]), Dataset.from_list(QA[1:])
    train.save_to_disk(tmp_path / "one")
    DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "both")
    assert [p.answer for p in load_problems(str(tmp_path / "one"))] == ["2"]
    assert [p.answer for p in load_problems(str(tmp_path / "both"), split="test")] == ["5"]
    assert "it has test, train" in error_of(tmp_path / "both", split="dev")


def test_a_directory_of_files_is_read_by_the_splits_in_its_names(tmp_path):
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data" / "train-00000-of-00002.jsonl", QA[:1])
    jsonl(tmp_path / "data" / "train-00001-of-00002.jsonl", [{"question": "3?", "answer": "3"}])
    jsonl(tmp_path / "data" / "test-00000-of-00001.jsonl", QA[1:])
    assert [p.answer for p in load_problems(str(tmp_path))] == ["2", "3"]
    assert [p.answer for p in load_problems(str(tmp_path), split="test")] == ["5"]
    assert "it has test, train" in error_of(tmp_path, split="validation")


def test_verl_rows_keep_their_messages_index_and_columns(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {
        "data_source": "x",
        "prompt": [{"content": "1+1?", "role": "user"}],
        "reward_model": {"ground_truth": "2", "style": "rule"},
        "extra_info": {"index": 7, "split": "train"},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "v.parquet")
    (loaded,) = load_problems(str(tmp_path / "v.parquet"))
    assert (loaded.id, loaded.answer, loaded.prompt) == ("7", "2", [{"role": "user", "content": "1+1?"}])
    assert loaded.extra == {k: row[k] for k in ("data_source", "reward_model", "extra_info")}


@pytest.mark.parametrize("prompt", PROMPT_COLUMNS)
@pytest.mark.parametrize("answer", ["answer", "target", "label", "gold", "solution", "output", "ground_truth"])
def test_known_columns_are_found(tmp_path, prompt, answer):
    (loaded,) = load_problems(jsonl(tmp_path / "a.jsonl", [{prompt: "q", answer: "7"}]))
    assert (loaded.prompt, loaded.answer) == ("q", "7")


def test_a_bare_answer_is_preferred_to_a_worked_solution(tmp_path):
    row = {"problem": "q", "solution": "so \\boxed{3}", "answer": "4"}
    assert load_problems(jsonl(tmp_path / "a.jsonl", [row]))[0].answer == "4"
    del row["answer"]
    (loaded,) = load_problems(jsonl(tmp_path / "a.jsonl", [row]))
    assert loaded.answer == "3"
    assert loaded.extra == {"solution": "so \\boxed{3}"}


@pytest.mark.parametrize("last", [{"role": "user", "content": "And 1+1?"}, {"role": "tool", "content": "2"}])
def test_a_conversation_that_waits_for_an_answer_is_a_prompt(tmp_path, last):
    (loaded,) = load_problems(jsonl(tmp_path / "a.jsonl", [{"prompt": [*SOLVED, last], "answer": "2"}]))
    assert loaded.prompt == [*SOLVED, last]


def test_named_columns_are_used_even_inside_a_column(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"q": "x", "prompt": "no", "meta": {"gold": 3, "key": "k1"}}])
    (loaded,) = load_problems(source, prompt_column="q", answer_column="meta.gold", id_column="meta.key")
    assert (loaded.id, loaded.prompt, loaded.answer) == ("k1", "x", "3")


FIVE = {"question": "Which is a prime?", "answer": "B"}


@pytest.mark.parametrize(
    ("row", "prompt", "words"),
    [
        ({"instruction": "Double it.", "input": "5", "output": "10"}, "instruction", "the column 'input' holds"),
        (FIVE | {"choices": ["4", "7"]}, "question", "the column 'choices' holds"),
        (FIVE | {"options": {"A": "4", "B": "7"}}, "question", "the column 'options' holds"),
        (
            FIVE | {"choices": {"text": ["four", "seven"], "label": ["A", "B"]}},
            "question",
            "the column 'choices' holds",
        ),
        (FIVE | {"passage": "Seven is a prime."}, "question", "the column 'passage' holds"),
        (FIVE | {"context": "Of 4 and 7.", "Body": "Tom asks."}, "question", "the columns 'context', 'Body' hold"),
        (FIVE | {"instruction": "Answer with a letter."}, "question", "the column 'instruction' holds"),
    ],
)
def test_a_prompt_that_leaves_out_a_part_of_the_problem_is_refused_unless_it_is_named(tmp_path, row, prompt, words):
    whole = {prompt: "Double 4.", list(row)[-1] if prompt == "instruction" else "answer": "8"}
    source = jsonl(tmp_path / "a.jsonl", [whole, row])
    message = error_of(source)
    assert f"in 1 of 2 rows {words} a part of the problem that is not in it (first line 2)" in message
    assert f"--prompt-column {prompt} to take that column alone" in message
    assert [p.prompt for p in load_problems(source, prompt_column=prompt)] == ["Double 4.", row[prompt]]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Double 5.", "input": "", "output": "10"},
        FIVE | {"question": "Which is a prime?\n(A) 4\n(B) 7", "choices": ["4", "7"]},
        FIVE | {"question": "Which is a prime?\nA: 4\nB:  seven", "options": ["A) 4", "B) Seven"]},
        {
            "prompt": [{"role": "user", "content": "Of 4 and 7: which is a prime?"}],
            "answer": "7",
            "context": "Of 4 and 7",
        },
        FIVE | {"input": "5", "context": None, "choices": []},
    ],
)
def test_a_prompt_that_says_all_of_the_problem_is_taken(tmp_path, row):
    (loaded,) = load_problems(jsonl(tmp_path / "a.jsonl", [row]))
    assert loaded.prompt == next(row[name] for name in PROMPT_COLUMNS if name in row)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (14.0, "14"),
        (14.5, "14.5"),
        (-0.0, "0"),
        (1e20, "100000000000000000000"),
        (1e-7, "0.0000001"),
        (3, "3"),
        ("so 1\n#### 1,234", "1234"),
        ("#### a #### 5 ", "5"),
        (" \\frac{3}{7} ", "\\frac{3}{7}"),
        ("so $\\boxed 8$.", "8"),
        ("so $\\boxed {8}$.", "8"),
        ("so $\\fbox{8}$.", "8"),
        ("first \\boxed{1}, then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
    ],
)
def test_golds_become_the_text_of_the_answer(tmp_path, value, text):
    assert load_problems(jsonl(tmp_path / "a.jsonl", [{"question": "q", "answer": value}]))[0].answer == text


# -- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("aime24.jsonl", 30, "204"),
        ("amc23.jsonl", 40, "27"),
        ("gsm8k_model_solutions.jsonl", 400, "90"),
        ("gsm8k_test.jsonl", 1319, "18"),
        ("gsm8k_train.jsonl", 7473, "72"),
        ("math500.jsonl", 500, "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("mawps_addsub.jsonl", 395, "43"),
        ("mawps_multiarith.jsonl", 580, "39"),
        ("mawps_singleop.jsonl", 531, "14"),
    ],
)
def test_real_problem_files_load(name, count, first):
    problems = load_problems(str(REAL / name))
    assert len(problems) == count == len({p.id for p in problems})
    assert problems[0].answer == first


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not on this machine")
def test_the_one_empty_gold_of_a_published_set_is_named_and_can_be_left_out():
    source = str(REAL / "dsr_sub.parquet")
    assert "row 266: the answer (column 'reward_model.ground_truth') cannot be checked: it is empty" in error_of(source)
    bad: list[str] = []
    problems = load_problems(source, on_bad=bad.append)
    assert (len(problems), len(bad)) == (1208, 1)
    assert {"0", "264", "266", "1208"} <= {p.id for p in problems}


# -- what is wrong is said -------------------------------------------------------------------------------------------


def test_a_missing_path_says_so(tmp_path):
    assert "There is no file or directory" in error_of(tmp_path / "nope.jsonl")
    assert "There is no file or directory" in error_of("./nope")
    assert "There is no file or directory" in error_of("nope")
    assert "The data source is ''" in error_of("")


def test_a_dataset_that_the_hub_does_not_give_says_so(tmp_path):
    code = (
        "from dopr.errors import DataError\nfrom dopr.tasks.problems import load_problems\n"
        "try: load_problems('nobody/nothing')\nexcept DataError as e: print(e)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "There is no file 'nobody/nothing', and as a dataset on the Hugging Face hub" in run.stdout, run.stderr


def test_a_split_that_a_dataset_has_not_is_told_from_a_dataset_that_cannot_be_read(tmp_path):
    (tmp_path / "org" / "name").mkdir(parents=True)  # the library reads a directory of this name as it reads the hub
    jsonl(tmp_path / "org" / "name" / "train.jsonl", QA)
    code = (
        "from dopr.errors import DataError\nfrom dopr.tasks.hub import read_hub\n"
        "print(len(read_hub('org/name', split='train')))\n"
        "for source in ('org/name', 'org/absent'):\n"
        "  try: read_hub(source, split='test')\n  except DataError as e: print(type(e).__name__, e)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    rows, no_split, absent = run.stdout.splitlines()
    assert rows == "2"
    assert no_split.startswith("NoSplitError The dataset 'org/name' has no split 'test': ")
    assert absent.startswith("DataError There is no file 'org/absent'")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", "", "holds no problems"),
        ("a.json", " ", "holds no problems"),
        ("a.csv", "", "holds no problems"),
        ("a.json", "[]", "holds no problems"),
        ("a.csv", "question,answer\n", "holds no problems"),
        ("a.jsonl", '{"question": "q", "answer": 1}\n{"question": ', "line 2: it is not valid JSON"),
        ("a.jsonl", '\n{"question": "q", "answer": 1}\n\n[1]\n', "line 4: it holds a list where an object"),
        ("a.jsonl", '"text"', "line 1: it holds a text"),
        ("a.jsonl", '[\n {"question": "q",\n "answer": 1}]', "holds one JSON array, where every line"),
        ("a.jsonl", '\n[{"question": "q", "answer": 1}]', "Rename it to a.json, which may hold an array"),
        ("a.jsonl", '[{"question": "q"},\n oops]', "line 1: it is not valid JSON"),
        ("a.jsonl", "[1]", "line 1: it holds a list where an object"),
        ("a.jsonl", "[" * 100_000, "its JSON cannot be read"),
        ("a.jsonl", '{"question": "q", "answer": ' + "1" * 5000 + "}", "its JSON cannot be read"),
        ("a.json", '[{"question": "q"},\n oops]', "line 2: it is not valid JSON: Expecting value near"),
        ("a.json", "3", "holds a number; it must be a list of objects"),
        ("a.json", '{"a": 1, "b": 2}', "holds an object; it must be a list of objects"),
        ("a.json", "[1, 2]", "row 1: it is a number"),
        ("a.txt", "hello", "has the extension '.txt'; it must be one of .jsonl, .json, .csv, .parquet"),
        ("README", "hello", "has no extension"),
        ("a.csv", "question,answer\n1,000?,3\n", "line 2: it has more cells than the header"),
        ("a.csv", "question;answer\nq, r;3\n", "'question;answer', so semicolons seem to stand between the cells"),
        ("a.csv", "question\tanswer\nq\t3\n", "so tabs seem to stand between the cells. The separator must be a comma"),
        ("a.csv", "question,question\na,b\n", "two columns have the same name"),
        ("a.csv", 'question,answer\n"a"b,c\n', "is not valid CSV"),
        ("a.csv", "question,answer\nq\n", "line 2: the answer (column 'answer') cannot be checked: it is missing"),
        ("a.parquet", "PAR1 not", "is not a parquet file"),
    ],
)
def test_a_broken_file_says_what_and_where(tmp_path, name, content, words):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert words in error_of(tmp_path / name)


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "q", "answer": "1"}\n{"question": "caf\xe9", "answer": "1"}\n')
    assert "line 2: it is not UTF-8" in error_of(tmp_path / "a.jsonl")


def test_a_directory_without_data_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert "holds no data" in error_of(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    assert "looks like a saved dataset but cannot be loaded" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "", "answer": 1}, "the prompt (column 'question') is empty"),
        ({"question": " \n", "answer": 1}, "the prompt (column 'question') is empty"),
        ({"question": None, "answer": 1}, "the prompt (column 'question') is missing (null)"),
        ({"question": 3, "answer": 1}, "the prompt (column 'question') is of type int"),
        ({"question": [], "answer": 1}, "is an empty list"),
        ({"question": ["a"], "answer": 1}, "whose entries are not all messages"),
        ({"question": [{"role": "user", "content": ""}], "answer": 1}, "the prompt (column 'question') is empty"),
        ({"question": SOLVED, "answer": 1}, "ends with a message of the role 'assistant'"),
        ({"question": [*SOLVED[:1], {"role": "gpt", "content": "1"}], "answer": 1}, "of the role 'gpt'"),
        ({"question": "\ud800", "answer": 1}, "half of a surrogate pair"),
        ({"question": "q", "answer": "5\ud800"}, "cannot be checked: it holds half of a surrogate pair"),
        ({"question": "q", "answer": ["Paris", "Par\udfff"]}, "cannot be checked: it holds half of a surrogate pair"),
        (
            {"question": "q", "answer": 1, "id": "a\ud800"},
            "the id (column 'id') is 'a\\ud800', with half of a surrogate pair",
        ),
        ({"question": "q", "answer": None}, "the answer (column 'answer') cannot be checked: it is missing"),
        ({"question": "q"}, "the answer (column 'answer') cannot be checked: it is missing"),
        ({"question": "q", "answer": True}, "cannot be checked: it is True"),
        ({"question": "q", "answer": float("nan")}, "cannot be checked: it is nan"),
        ({"question": "q", "answer": float("inf")}, "cannot be checked: it is inf"),
        ({"question": "q", "answer": "  "}, "cannot be checked: it is empty"),
        ({"question": "q", "answer": "work ####  "}, "cannot be checked: it is empty"),
        ({"question": "q", "answer": [["1"]]}, "cannot be checked: it is of type list"),
        ({"question": "q", "answer": 1, "id": None}, "the id (column 'id') is None"),
        ({"question": "q", "answer": 1, "id": [1]}, "the id (column 'id') is [1]"),
        ({"question": "q", "answer": 1, "id": "g"}, "its id 'g' is also that of line 1"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_can_be_left_out(tmp_path, row, words):
    good = {"question": "good", "answer": 1} | ({"id": "g"} if "id" in row else {})
    source = jsonl(tmp_path / "a.jsonl", [good, row])
    message = error_of(source)
    assert words in message
    assert "line 2: " in message
    bad: list[str] = []
    assert [p.prompt for p in load_problems(source, on_bad=bad.append)] == ["good"]
    assert len(bad) == 1
    assert words in bad[0]


def test_many_bad_rows_are_counted(tmp_path):
    message = error_of(jsonl(tmp_path / "a.jsonl", [{"question": "q", "answer": None}] * 7))
    assert "line 5" in message
    assert "line 6" not in message
    assert "And 2 more rows" in message


def test_absent_columns_are_listed_with_the_option_that_names_them(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"frage": "q", "antwort": "1"}])
    assert "'frage', 'antwort', and none is a prompt" in error_of(source)
    assert "--prompt-column" in error_of(source)
    assert "none is an answer" in error_of(source, prompt_column="frage")
    assert "--answer-column" in error_of(source, prompt_column="frage")
    assert "no column 'fraeg' (--prompt-column). Did you mean 'frage'?" in error_of(source, prompt_column="fraeg")
    assert "no column 'a' (--answer-column)" in error_of(source, prompt_column="frage", answer_column="a")
    assert "no column 'n' (--id-column)" in error_of(
        source, prompt_column="frage", answer_column="antwort", id_column="n"
    )


def test_problems_without_answers_load_only_when_asked(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"prompt": "write a poem"}])
    assert "none is an answer" in error_of(source)
    assert load_problems(source, require_answer=False)[0].answer is None


def test_repeated_problems_are_kept_once_and_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="dopr"):
        problems = load_problems(jsonl(tmp_path / "a.jsonl", [*QA, QA[0]]))
    assert [p.answer for p in problems] == ["2", "5"]
    assert "1 repeated problems" in caplog.text


@pytest.mark.parametrize("ids", ["id", "extra_info"])
def test_exact_repeats_under_one_id_are_kept_once(tmp_path, caplog, ids):
    rows = [row | {"id": f"p{k}"} if ids == "id" else row | {ids: {"index": f"p{k}"}} for k, row in enumerate(QA)]
    rows = [{**row, "prompt": [{"role": "user", "content": row["question"]}]} for row in rows]
    with caplog.at_level(logging.WARNING, logger="dopr"):
        problems = load_problems(jsonl(tmp_path / "a.jsonl", rows * 3), prompt_column="prompt")
    assert [(p.id, p.answer) for p in problems] == [("p0", "2"), ("p1", "5")]
    assert "4 repeated problems (same prompt and answer) left out, 2 kept" in caplog.text


def test_one_prompt_with_other_tests_is_an_error(tmp_path):
    rows = [{"prompt": "Write f.", "tests": [f"assert f({k}) == 1"]} for k in (1, 1, 2)]
    message = error_of(jsonl(tmp_path / "a.jsonl", rows), require_answer=False)
    assert "line 3: it has the prompt of line 1 but other tests; two problems" in message
    assert "line 2" not in message


def test_one_prompt_with_two_answers_is_an_error(tmp_path):
    message = error_of(jsonl(tmp_path / "a.jsonl", [*QA, {"question": "1+1?", "answer": "3"}]))
    assert "line 3: it has the prompt of line 1 but another answer, '3' against '2'" in message


def test_one_prompt_under_two_ids_is_two_problems(tmp_path):
    rows = [{"id": i, "question": "q", "answer": "1"} for i in (1, 2)]
    assert [p.id for p in load_problems(jsonl(tmp_path / "a.jsonl", rows))] == ["1", "2"]


def test_hostile_extra_columns_pass_through_and_stay_out_of_the_rows(tmp_path):
    hostile = {
        "html": "<script>",
        "mixed": {"a": [1, {"b": None}]},
        "huge": {"a": 10**30},
        "broken": ["\ud800"],
        "deep": json.loads("[" * 60 + "]" * 60),
        "big": 10**30,
        "completion": "x",
        "trainer_state": 1,
    }
    (loaded,) = load_problems(jsonl(tmp_path / "a.jsonl", [QA[0] | hostile]))
    assert loaded.extra == hostile
    (row,) = to_rows([loaded])
    assert row == {"prompt": "1+1?", "answer": "2", "id": loaded.id, "html": "<script>", "big": None}


# -- ids, subsets, splits --------------------------------------------------------------------------------------------


def test_ids_do_not_depend_on_order_or_format(tmp_path):
    forward = {p.prompt: p.id for p in load_problems(jsonl(tmp_path / "a.jsonl", QA))}
    backward = {p.prompt: p.id for p in load_problems(jsonl(tmp_path / "b.jsonl", QA[::-1]))}
    assert forward == backward
    assert forward["1+1?"] == "2c71358fd87e6897"  # sha1("1+1?"): a run's history must survive an upgrade


def test_a_subset_is_drawn_by_its_seed_in_file_order(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"question": f"q{i}", "answer": i} for i in range(100)])
    subset = [int(p.answer or "") for p in load_problems(source, size=10, seed=1)]
    assert subset == [int(p.answer or "") for p in load_problems(source, size=10, seed=1)]
    assert subset == sorted(set(subset))
    assert subset != [int(p.answer or "") for p in load_problems(source, size=10, seed=2)]
    assert len(load_problems(source, size=1000)) == 100
    with pytest.raises(ConfigError, match="size is 0"):
        load_problems(source, size=0)


@given(st.lists(st.text(min_size=1), unique=True, min_size=2, max_size=30), st.integers(0, 5), st.data())
def test_the_holdout_depends_on_ids_and_seed_alone(ids, seed, data):
    problems = [Problem(id=i, prompt=i, answer="1", extra={}) for i in ids]
    n = data.draw(st.integers(0, len(ids) - 1))
    train, held = split_holdout(problems, n, seed)
    assert len(held) == n
    assert [p for p in problems if p in train] == train
    assert {p.id for p in train} | {p.id for p in held} == set(ids)
    shuffled = data.draw(st.permutations(problems))
    assert {p.id for p in split_holdout(shuffled, n, seed)[1]} == {p.id for p in held}


def test_holding_out_everything_is_an_error():
    with pytest.raises(ConfigError, match="2 problems to hold out of 2"):
        split_holdout([problem("a"), problem("b")], 2, 0)
    with pytest.raises(ConfigError):
        split_holdout([problem("a")], -1, 0)


def test_rows_make_a_dataset():
    from datasets import Dataset

    rows = to_rows([problem("a", skill="s1", n=1), problem("b", None, n=None)], template="boxed")
    data = Dataset.from_list(rows)
    assert data["skill"][:] == ["s1", None]
    assert data["n"][:] == [1, None]
    assert data["answer"][:] == ["2", None]
    assert "\\boxed{}" in data["prompt"][0]


def test_columns_reach_the_rows_as_a_dataset_holds_them():
    from datasets import Dataset

    extras = [
        {"choices": {"text": ["1", "2"]}, "hints": ["a"], "weight": 1, "none": None, "odd": 1},
        {"choices": {"text": [], "label": "A"}, "hints": None, "weight": 0.5, "none": None, "odd": "x"},
    ]
    rows = to_rows([problem(f"q{i}", **extra) for i, extra in enumerate(extras)])
    assert [row["choices"] for row in rows] == [{"text": ["1", "2"], "label": None}, {"text": [], "label": "A"}]
    assert [row["hints"] for row in rows] == [["a"], None]
    assert [(row["weight"], type(row["weight"])) for row in rows] == [(1.0, float), (0.5, float)]
    assert "odd" not in rows[0]
    assert Dataset.from_list(rows).to_list() == rows


def test_no_reserved_name_reaches_the_rows():
    extra = dict.fromkeys(RESERVED - {"prompt", "answer", "id"}, "x")
    assert to_rows([problem(**extra)]) == [{"prompt": "1+1?", "answer": "2", "id": prompt_id("1+1?")}]


# -- templates -------------------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.text(min_size=1))
def test_a_template_replaces_its_token_and_nothing_else(before, after, prompt):
    assert render_prompt(problem(prompt), before + "{prompt}" + after, None, False) == (
        before + "{prompt}" + after
    ).replace("{prompt}", prompt)


def test_braces_in_problem_and_template_mean_nothing():
    rendered = render_prompt(problem("f{x} {0} {prompt}"), "\\boxed{} {y}: {prompt}", None, False)
    assert rendered == "\\boxed{} {y}: f{x} {0} {prompt}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_templates_keep_the_problem(name):
    assert "1+1?" in render_prompt(problem(), name, None, False)


def test_chat_gives_messages():
    system, user = {"role": "system", "content": "s"}, {"role": "user", "content": "1+1?"}
    assert render_prompt(problem(), None, None, True) == [user]
    assert render_prompt(problem(), None, "s", True) == [system, user]
    assert render_prompt(problem([user]), None, "s", True) == [system, user]
    assert render_prompt(problem([user]), "Q: {prompt}", None, False) == "Q: 1+1?"
    assert user["content"] == "1+1?"


def test_what_cannot_be_rendered_says_why():
    user, system = {"role": "user", "content": "q"}, {"role": "system", "content": "s"}
    with pytest.raises(ConfigError, match="Did you mean 'boxed'"):
        render_prompt(problem(), "boxd", None, False)
    with pytest.raises(ConfigError, match="system prompt needs chat"):
        render_prompt(problem(), None, "s", False)
    with pytest.raises(ConfigError, match="conversation of 2 messages"):
        render_prompt(problem([system, user]), None, None, False)
    with pytest.raises(ConfigError, match="system prompt of its own"):
        render_prompt(problem([system, user]), None, "s", True)


# -- reasoning-gym ---------------------------------------------------------------------------------------------------


def test_gym_problems_are_repeatable_distinct_and_apart_by_split():
    train = load_problems("gym:chain_sum?min_terms=2,max_terms=3", size=30, seed=3)
    assert train == load_problems("gym:chain_sum?min_terms=2,max_terms=3", size=30, seed=3)
    assert train[:10] == load_problems("gym:chain_sum?min_terms=2,max_terms=3", size=10, seed=3)
    test = load_problems("gym:chain_sum?min_terms=2,max_terms=3", size=30, seed=3, split="test")
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert not {p.id for p in train} & {p.id for p in test}
    assert train[0].extra["skill"] == "chain_sum"
    assert to_rows(train)[0]["gym_entry"] == train[0].extra["gym_entry"]


def test_gym_problems_that_rates_are_tuned_on_are_not_those_of_a_reported_seed():
    """Seeds wrap around after 1400; after 500, as once, the tuning seed 1000 had the problems of seed 0."""
    prompts = [tuple(p.prompt for p in load_problems("gym:chain_sum", size=3, seed=s)) for s in (*range(8), 1000, 1001)]
    assert len(set(prompts)) == 10


def test_gym_repeats_are_left_out():
    problems = load_problems("gym:coin_flip?min_trials=1,max_trials=2", size=60)
    assert 0 < len(problems) < 60
    assert len({p.prompt for p in problems}) == len(problems)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("gym:chain_sun", {}, "no reasoning-gym task 'chain_sun'; close to it are chain_sum"),
        ("gym:chain_sum?terms=3", {}, "takes no option 'terms'"),
        ("gym:chain_sum?min_terms", {}, "not of the form key=value"),
        ("gym:chain_sum?seed=3", {}, "use --seed"),
        ("gym:chain_sum?min_terms=9,max_terms=2", {}, "does not accept these options"),
        ("gym:chain_sum", {"split": "tset"}, "Did you mean 'test'"),
        ("gym:chain_sum", {"size": 2_000_000}, "more than one seed gives"),
    ],
)
def test_a_wrong_gym_source_says_why(source, options, words):
    assert words in error_of(source, **options)


def test_known_columns_are_documented():
    import dopr.tasks.columns as module

    assert module.__doc__ is not None
    assert all(name in module.__doc__ for name in (*PROMPT_COLUMNS, *ANSWER_COLUMNS))
