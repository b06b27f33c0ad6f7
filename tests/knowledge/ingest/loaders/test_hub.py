"""Data sets of the hub: their source is their address, and what cannot be loaded is an error."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from ragweave.errors import SourceError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.loaders.hub import dataset_files
from ragweave.knowledge.ingest.loaders.loader import find_sources


def test_the_source_is_the_address(tmp_path, tiny_encoder):
    def loaded(*texts):
        rows = {
            "title": [f"{n}" for n in range(len(texts))],
            "text": list(texts),
            "embeddings": [[0.5]] * len(texts),
        }
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
        cache = str(tmp_path / f"cache{len(texts)}")
        data = {"train": str(tmp_path / "train.parquet")}
        return datasets.load_dataset("parquet", data_files=data, split="train", cache_dir=cache)

    address = "hf://datasets/me/mine:train"
    base = KnowledgeBase.build(
        dataset_files(loaded("One.", "Two."), address), tmp_path / "kb", encoder=tiny_encoder
    )
    assert {base.passage(row).source for row in range(2)} == {address}
    assert base.passage(0).document_id == "mine:train:1"
    same = base.add(dataset_files(loaded("One.", "Two."), address), encoder=tiny_encoder)
    assert same.version == base.version
    new = base.add(dataset_files(loaded("One.", "Two.", "Three."), address), encoder=tiny_encoder)
    assert new.manifest.passages == 3


def test_data_sets_that_cannot_be_loaded(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="The data set nobody/nothing cannot be loaded from the hub"):
        find_sources([Path("hf://datasets/nobody/nothing:train")])
    with pytest.raises(SourceError, match="not the address of a data set: write hf://datasets/NAME"):
        find_sources([Path("hf://datasets/a/b/c d")])
