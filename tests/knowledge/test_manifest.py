"""Manifests: they survive a round trip, and damaged or foreign ones are refused."""

import json
from dataclasses import replace

import pytest

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.manifest import EXACT, Manifest


@pytest.fixture
def content(base):
    return json.loads(base.manifest.to_json())


def read(tmp_path, content) -> Manifest:
    path = tmp_path / "manifest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Manifest.read(path)


def test_round_trip(base, content, tmp_path):
    assert read(tmp_path, content) == base.manifest


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "{}", '{"format_version": 2}', "[" * 100_000])
def test_damaged_json(tmp_path, text):
    with pytest.raises(KnowledgeBaseError, match="is damaged"):
        read(tmp_path, text)


def test_format_of_another_ragweave(tmp_path, content):
    with pytest.raises(
        KnowledgeBaseError, match="has format 9, this ragweave reads formats 2, 3, 4, 5, 6, 7, 8"
    ):
        read(tmp_path, content | {"format_version": 9})


def before_format_4(manifest: Manifest, **fields) -> Manifest:
    change = replace(manifest.change, read=0, ignored={})
    segments = tuple(replace(one, recall={"10": 0.9}, measured=0) for one in manifest.segments)
    return replace(manifest, analyzer=1, change=change, segments=segments, **fields)


def test_recall_before_it_was_measured_at_several_depths(base, tmp_path):
    old = before_format_4(base.manifest, format_version=3)
    assert json.loads(old.to_json())["segments"][0]["recall"] == 0.9
    assert read(tmp_path, old.to_json()).recall == EXACT  # all vectors are compared
    (segment,) = old.segments
    graph = replace(old, segments=(replace(segment, factory="HNSW32"),))
    assert read(tmp_path, graph.to_json()).recall == {}
    unknown = replace(old, segments=(replace(segment, factory="HNSW32", recall={}),))
    assert read(tmp_path, unknown.to_json()) == unknown


def test_format_before_ignored_files_were_counted(base, tmp_path):
    old = before_format_4(base.manifest, format_version=3)
    content = json.loads(old.to_json())
    assert "analyzer" not in content and "read" not in content["change"]
    assert read(tmp_path, content) == old


def test_format_before_prompts(base, tmp_path):
    old = replace(base.manifest, format_version=7)
    content = json.loads(old.to_json())
    assert not {"question_prompt", "passage_prompt", "dim"} & content["encoder"].keys()
    assert read(tmp_path, content) == old


def test_format_before_search_by_words(base, tmp_path):
    old = before_format_4(base.manifest, format_version=2, language=None)
    content = json.loads(old.to_json())
    assert "lexical" not in content
    assert read(tmp_path, content) == old


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["dimension"], "16"),
        (["dimension"], True),
        (["dimension"], -1),
        (["segments", 0, "passages"], 1.5),
        (["encoder"], None),
        (["encoder", "normalize"], 1),
        (["encoder", "fingerprint"], None),
        (["files"], []),
        (["segments", 0, "files", "vectors.npy", "bytes"], "7"),
        (["files", "sources.json", "bytes"], "7"),
        (["change", "added"], None),
        (["change", "skipped"], [5]),
        (["segments"], None),
        (["format_version"], "1"),
    ],
)
def test_values_of_the_wrong_kind(tmp_path, content, keys, value):
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    with pytest.raises(KnowledgeBaseError, match=r"is damaged \((?!.*checksum)"):
        read(tmp_path, content)


@pytest.mark.parametrize("keys", [["dimension"], ["segments", 0, "rows"], ["files", "deleted.npy", "bytes"]])
def test_a_value_that_was_changed(tmp_path, content, keys):
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] += 1
    with pytest.raises(KnowledgeBaseError, match="checksum"):
        read(tmp_path, content)


@pytest.mark.parametrize("name", ["../vectors.npy", "/etc/passwd", "a\\b", "..", "", "C:x"])
def test_names_that_lead_out_of_the_folder(tmp_path, content, name):
    for files in (content["files"], content["segments"][0]["files"]):
        files[name] = content["files"]["deleted.npy"]
        with pytest.raises(KnowledgeBaseError, match="plain file name"):
            read(tmp_path, content)
        del files[name]
    content["segments"][0]["name"] = name
    with pytest.raises(KnowledgeBaseError, match="plain file name"):
        read(tmp_path, content)
