"""The tables of the experiment, and their place in the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.hot_swap.answers import DECODINGS, VERSIONS, Asked
from experiments.hot_swap.facts import CAPITAL, CHIEF
from experiments.hot_swap.grading import Share, is_right_by, leaks, select, share

BEGIN = "<!-- written by experiments/hot_swap: begin -->"
END = "<!-- written by experiments/hot_swap: end -->"

_KINDS = {"chief of state": (CHIEF,), "capital": (CAPITAL,), "both": (CHIEF, CAPITAL)}
_ACCURACY_HEAD = (
    "| Answers | Question | Countries | Index A, A's answers | Index B, B's answers | Index A, B's answers "
    "| Index B, A's answers | Index B, A's name in the answer |"
)
_RETRIEVAL_HEAD = (
    "| Index | Question | Name retrieved | Correct if retrieved, extractive | Correct if retrieved, free |"
)


def tables(asked: Sequence[Asked]) -> str:
    """Writes the accuracy by index and gold answers, and what retrieval has to do with it.

    Args:
        asked: All questions and answers.

    Returns:
        Two tables in Markdown.
    """
    return f"{_table(_ACCURACY_HEAD, _accuracy(asked))}\n\n{_table(_RETRIEVAL_HEAD, _retrieval(asked))}"


def _accuracy(asked: Sequence[Asked]) -> Iterable[list[str]]:
    for decoding in DECODINGS:
        for label, kinds in _KINDS.items():
            a = select(asked, version="original", decoding=decoding, kinds=kinds)
            b = select(asked, version="exchanged", decoding=decoding, kinds=kinds)
            if a or b:
                yield [
                    decoding,
                    label,
                    str(len({own.country for own in (*a, *b)})),
                    _shown(share(a, is_right_by("original"))),
                    _shown(share(b, is_right_by("exchanged"))),
                    _shown(share(a, is_right_by("exchanged"))),
                    _shown(share(b, is_right_by("original"))),
                    _shown(share(b, leaks)),
                ]


def _retrieval(asked: Sequence[Asked]) -> Iterable[list[str]]:
    for letter, version in zip("AB", VERSIONS, strict=True):
        for label, kinds in _KINDS.items():
            by_decoding = [
                select(asked, version=version, decoding=decoding, kinds=kinds) for decoding in DECODINGS
            ]
            found = [[one for one in own if one.retrieved] for own in by_decoding]
            # Retrieval is the same whichever way answers are decoded.
            retrieved = next((share(own, lambda one: one.retrieved) for own in by_decoding if own), None)
            if retrieved:
                right = [_shown(share(own, is_right_by(version))) for own in found]
                yield [letter, label, _shown(retrieved), *right]


def _shown(found: Share | None) -> str:
    if found is None:
        return ""
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _table(head: str, rows: Iterable[list[str]]) -> str:
    rule = "|" + "-|" * (head.count("|") - 1)
    return "\n".join([head, rule, *(f"| {' | '.join(row)} |" for row in rows)])


def write(path: Path, content: str) -> None:
    """Puts content between the markers of a page; a page that is not there is made of it alone.

    Args:
        path: The page.
        content: What stands between the markers from now on.

    Raises:
        SystemExit: The page has no markers.
    """
    before, after = around_the_tables(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{before}{BEGIN}\n{content}\n{END}{after}", encoding="utf-8")
    partial.replace(path)


def around_the_tables(path: Path) -> tuple[str, str]:
    """Reads what stands before and after the markers of a page.

    Args:
        path: The page; it need not be there.

    Raises:
        SystemExit: The page has no markers.
    """
    if not path.exists():
        return "", "\n"
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no lines '{BEGIN}' and '{END}': put them where the tables belong.")
    return before, after
