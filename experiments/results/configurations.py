"""The configurations: the embedded model, and variants that change one setting."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ragweave.evaluation.evaluate import ModelSettings
from ragweave.evaluation.run_folder import RunSettings
from ragweave.types import SearchSettings


@dataclass(frozen=True)
class Configuration:
    """One row of the table.

    Attributes:
        name: Its folder.
        label: What it is called in the table.
        group: The heading that it stands below.
        model: What answers, and how it searches.
        settings: What is done with every question.
        data: The data sets that it is run on.
        asked_again: Whether its questions are asked again to see what the answers rest on (`provenance`).
        vote: Whether every passage answers by itself, and the answers are voted on (`vote`).
        trained: The folder of the model below ``--trained``, where it is not the embedded one.
    """

    name: str
    label: str
    group: str
    model: ModelSettings = field(default_factory=lambda: ModelSettings(dtype="bfloat16"))
    settings: RunSettings = field(default_factory=RunSettings)
    data: tuple[str, ...] = ("factbook", "xquad")
    asked_again: bool = False
    vote: bool = False
    trained: str | None = None


EVERYWHERE = ("factbook", "xquad", "comparisons")

_BASE = Configuration(
    "base",
    "hybrid, RAG-Token, K = 5, greedy, extractive, bfloat16",
    "The embedded model",
    data=EVERYWHERE,
    asked_again=True,
)


def _searching(name: str, label: str, search: SearchSettings) -> Configuration:
    return Configuration(name, label, "Retrieval", replace(_BASE.model, search=search))


def _with(
    name: str,
    label: str,
    group: str,
    *,
    model: dict[str, object] | None = None,
    data: tuple[str, ...] = ("factbook", "xquad"),
    asked_again: bool = False,
    vote: bool = False,
    **own: object,
) -> Configuration:
    return Configuration(
        name,
        label,
        group,
        replace(_BASE.model, **(model or {})),  # type: ignore[arg-type]
        replace(_BASE.settings, **own),  # type: ignore[arg-type]
        data,
        asked_again,
        vote,
    )


def _at(k: int, name: str, label: str, formulation: str | None = None, **own: object) -> Configuration:
    """A formulation at another K."""
    return _with(
        f"{name}{k}",
        f"{label}K = {k}",
        "Number of passages",
        model={"formulation": formulation},
        data=EVERYWHERE,
        n_docs=k,
        **own,
    )


CONFIGURATIONS = (
    _BASE,
    _searching("dense", "dense", SearchSettings("dense")),
    _searching("bm25", "BM25", SearchSettings("bm25")),
    _searching("rrf", "hybrid, reciprocal ranks", SearchSettings("hybrid", "rrf")),
    _with("gold", "gold passage given", "Retrieval", gold=True, n_docs=1),
    _with("closed", "closed book", "Retrieval", mode="closed-book", n_docs=1, data=EVERYWHERE),
    _with(
        "thorough",
        "RAG-Sequence, thorough",
        "Formulation",
        model={"formulation": "sequence"},
        decoding="thorough",
        data=EVERYWHERE,
        asked_again=True,
    ),
    _with("fast", "RAG-Sequence, fast", "Formulation", model={"formulation": "sequence"}, decoding="fast"),
    _with(
        "concat",
        "one prompt of all passages",
        "Formulation",
        model={"formulation": "concat"},
        data=EVERYWHERE,
        asked_again=True,
    ),
    _with("vote", "vote of the passages", "Formulation", data=EVERYWHERE, asked_again=True, vote=True),
    _with("pced", "PCED", "Formulation", model={"formulation": "pced"}, data=EVERYWHERE, asked_again=True),
    _with("beams", "RAG-Token, 4 beams", "Formulation", num_beams=4),
    _with("free", "RAG-Token, any words", "Formulation", extractive=False),
    _at(1, "k", ""),
    _with("k2", "K = 2", "Number of passages", n_docs=2),
    _at(3, "k", ""),
    _at(10, "k", ""),
    _with("k20", "K = 20", "Number of passages", n_docs=20, data=("xquad",)),
    _with("k50", "K = 50", "Number of passages", n_docs=50, data=("xquad",)),
    _at(3, "thorough", "RAG-Sequence, thorough, ", "sequence", decoding="thorough"),
    _at(10, "thorough", "RAG-Sequence, thorough, ", "sequence", decoding="thorough"),
    _at(3, "concat", "one prompt of all passages, ", "concat"),
    _at(10, "concat", "one prompt of all passages, ", "concat"),
    _with("no-adapter", "without the adapter", "Generator", model={"adapter": False}),
    _with(
        "gold-no-adapter",
        "without the adapter, gold passage given",
        "Generator",
        model={"adapter": False},
        gold=True,
        n_docs=1,
    ),
    _with(
        "closed-no-adapter",
        "without the adapter, closed book",
        "Generator",
        model={"adapter": False},
        mode="closed-book",
        n_docs=1,
    ),
    *(
        replace(_with(name, label, "Trained further", data=EVERYWHERE, **own), trained=folder)  # type: ignore[arg-type]
        for name, label, folder, own in (
            ("trained", "RAG-Token, on single passages", "single", {}),
            (
                "trained-thorough",
                "RAG-Sequence, thorough, on single passages",
                "single",
                {"model": {"formulation": "sequence"}, "decoding": "thorough"},
            ),
            (
                "trained-concat",
                "one prompt, on prompts of 5 passages",
                "together",
                {"model": {"formulation": "concat"}},
            ),
        )
    ),
    _with("float32", "float32", "Generator", model={"dtype": "float32"}),
    _with("int8", "int8", "Generator", model={"dtype": "int8"}),
)
"""All rows, the first being what the others are compared with."""
