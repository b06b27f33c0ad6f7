"""A knowledge base is shared on the hub in one commit with a card, and read from it."""

from __future__ import annotations

import pytest

from ragweave import KnowledgeBase
from ragweave.errors import KnowledgeBaseError
from tests.support.hub import hub_stand_in


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_stand_in(tmp_path, monkeypatch) as stand_in:
        yield stand_in


def push(base: KnowledgeBase, description: str = "") -> str:
    return base.push_to_hub("me/notes", licence="cc-by-4.0", description=description)


def pull(revision: str | None = None) -> list[str]:
    base = KnowledgeBase.from_hub("me/notes", revision=revision)
    base.verify()
    return sorted(passage.text for passage in base.passages(range(len(base))))


def test_versions_are_pushed_and_a_revision_stays_what_it_is(hub, notes, tmp_path, encoder):
    kb = KnowledgeBase.build([notes], tmp_path / "kb", encoder=encoder)
    first = push(kb)
    assert hub.created[0]["visibility"] == "private"
    texts = pull()
    assert texts == sorted(passage.text for passage in kb.passages(range(3)))
    smaller = kb.delete(ids=["ulm.txt"]).compact(keep=0)
    second = push(smaller)
    assert len(pull(second)) == 2
    assert pull(first) == texts
    kept = {"/".join(name.split("/")[:2]) for name in hub.files(second) if "/" in name}
    assert kept == {f"versions/{smaller.version}", f"segments/{smaller.manifest.segments[0].name}"}


def test_the_version_that_is_pushed_is_the_current_one_there(hub, notes, tmp_path, encoder):
    kb = KnowledgeBase.build([notes], tmp_path / "kb", encoder=encoder)
    kb.delete(ids=["ulm.txt"])
    push(kb)
    assert len(pull()) == 3


def test_the_card_says_what_it_is_and_what_it_was_made_of(hub, notes, tmp_path, encoder):
    kb = KnowledgeBase.build([notes], tmp_path / "kb", encoder=encoder)
    push(kb, "Notes about rivers.")
    card = hub.files("main")["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "\nNotes about rivers.\n" in card
    for line in ("| passages | 3 |", "| encoder | words |", "| language | english |", "| version | 000001 |"):
        assert line in card
    assert all(f"| {source} | 1 |" in card for source in kb.sources())


def test_what_cannot_be_pushed_is_said(notes, tmp_path, encoder):
    kb = KnowledgeBase.build([notes], tmp_path / "kb", encoder=encoder)
    with pytest.raises(KnowledgeBaseError, match="cannot be pushed to no name at all"):
        kb.push_to_hub("no name at all", licence="mit")
    with pytest.raises(KnowledgeBaseError, match="cannot be pushed to me/notes"):
        push(kb)  # the tests ask no hub
