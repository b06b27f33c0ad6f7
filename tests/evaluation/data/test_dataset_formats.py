"""Data sets of the library ``datasets``, and Parquet files."""

from __future__ import annotations

import datasets
import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import read_examples
from tests.support.questions import parts, written

ROWS = {"q": ["Where?", "Who?"], "answer": [{"aliases": ["Lima", "Peru"]}, {"aliases": ["Ada"]}]}
COLUMNS = {"question": "q", "answers": "answer.aliases"}
EXPECTED = [("1", "Where?", ("Lima", "Peru"), ()), ("2", "Who?", ("Ada",), ())]


@pytest.fixture
def saved(tmp_path):
    table = datasets.Dataset.from_dict(ROWS)
    table.with_format("numpy").save_to_disk(tmp_path / "saved")  # arrays are not lists
    datasets.DatasetDict({"dev": table}).save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "dev": table.select([1])}).save_to_disk(tmp_path / "two")
    return tmp_path


def test_saved_folders(saved):
    examples = read_examples(saved / "saved", columns=COLUMNS)
    assert parts(examples) == EXPECTED
    assert examples[1].where == f"row 2 of {saved / 'saved'}"
    assert parts(read_examples(saved / "one", columns=COLUMNS)) == EXPECTED
    (only,) = read_examples(f"{saved / 'two'}:dev", format="dataset", columns=COLUMNS)
    assert only.question == "Who?"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two:test", "it has the splits train, dev, not 'test'"),
        ("two", "it has the splits train, dev, not 'validation'.: write NAME,CONFIGURATION:SPLIT"),
        ("saved:train", "it was saved without splits"),
        ("nothing", "cannot be read"),
    ],
)
def test_splits_that_are_not_there(saved, monkeypatch, name, message):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=message):
        read_examples(f"{saved / name}", format="dataset", columns=COLUMNS)


def test_a_folder_of_data_files_as_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "copy"
    folder.mkdir()
    datasets.Dataset.from_dict(ROWS).to_parquet(folder / "validation-00000-of-00001.parquet")
    assert parts(read_examples(folder, columns=COLUMNS)) == EXPECTED
    with pytest.raises(DataError, match=r"cannot be read .*train"):
        read_examples(f"{folder}:train", format="dataset", columns=COLUMNS)


def test_numbered_classes_become_their_names(tmp_path):
    features = datasets.Features(
        {"claim": datasets.Value("string"), "label": datasets.ClassLabel(names=["SUPPORTS", "REFUTES"])}
    )
    rows = {"claim": ["a", "b"], "label": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "fever")
    examples = read_examples(tmp_path / "fever", recipe="fever-2")
    assert [(example.answers, example.label) for example in examples] == [
        (("R",), "REFUTES"),
        (("S",), "SUPPORTS"),
    ]
    rows["label"][1] = -1  # a class that is not known
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "hidden")
    with pytest.raises(DataError, match=r"Row 2 of .* has no answers"):
        read_examples(tmp_path / "hidden", columns={"question": "claim", "answer": "label"})


def test_kilt_on_the_hub(tmp_path):
    rows = {
        "id": ["k"],
        "input": ["Where?"],
        "output": [[{"answer": "Lima", "provenance": [{"wikipedia_id": "7", "title": "Peru"}]}]],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "kilt")
    assert parts(read_examples(tmp_path / "kilt")) == [("k", "Where?", ("Lima",), ("7",))]


def test_a_parquet_file(tmp_path):
    path = tmp_path / "validation.parquet"
    datasets.Dataset.from_dict(ROWS).to_parquet(path)
    examples = read_examples(path, columns=COLUMNS)
    assert parts(examples) == EXPECTED
    assert examples[1].where == f"row 2 of {path}"
    written(path, "no table")
    with pytest.raises(DataError, match="is not a complete Parquet file"):
        read_examples(path)
