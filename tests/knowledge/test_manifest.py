"""Manifests: they survive a round trip, and damaged or foreign ones are refused."""

import hashlib
import json
from dataclasses import replace

import pytest

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.manifest import ANALYZER_VERSION, EXACT, FORMAT_VERSION, Manifest


@pytest.fixture
def content(base):
    return json.loads(base.manifest.to_json())


def read(tmp_path, content) -> Manifest:
    path = tmp_path / "manifest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Manifest.read(path)


def test_round_trip(base, content, tmp_path):
    assert read(tmp_path, content) == base.manifest


def test_a_manifest_with_other_fields_keeps_its_checksum(base, content, tmp_path):
    del content["checksum"], content["change"]["without_text"]
    content["change"]["of_a_later_ragweave"] = 5
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    manifest = read(tmp_path, {**content, "checksum": checksum})
    assert manifest.checksum == checksum != base.manifest.checksum
    assert manifest.change == replace(base.manifest.change, without_text=0)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "{}", '{"format_version": 8}', "[" * 100_000])
def test_damaged_json(tmp_path, text):
    with pytest.raises(KnowledgeBaseError, match="is damaged"):
        read(tmp_path, text)


@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, FORMAT_VERSION + 1])
def test_format_of_another_ragweave(tmp_path, content, version):
    with pytest.raises(
        KnowledgeBaseError, match=f"has format {version}, this ragweave reads format {FORMAT_VERSION}"
    ):
        read(tmp_path, content | {"format_version": version})


def test_recall_of_segments(base, tmp_path):
    assert base.manifest.recall == EXACT  # all vectors are compared
    (segment,) = base.manifest.segments
    unmeasured = replace(base.manifest, segments=(replace(segment, factory="HNSW32", recall={}),))
    assert unmeasured.recall == {}
    assert read(tmp_path, unmeasured.to_json()) == unmeasured


def test_words_by_other_rules(base, tmp_path):
    old = replace(base.manifest, analyzer=ANALYZER_VERSION - 1)
    with pytest.raises(KnowledgeBaseError, match="other rules"):
        read(tmp_path, old.to_json())


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
