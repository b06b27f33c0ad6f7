"""No regular expression takes time that grows with the square of a text, whatever the text.

A match holds the lock of the interpreter, so one such text would stop every thread of a service.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from re import _constants as codes
from re import _parser as parser
from typing import Any, NamedTuple

import pytest
import regex

import ragweave

SOURCE = Path(ragweave.__file__).parent
SIZES = (1000, 4000)  # linear: 4 times the time; quadratic: 16 times
FASTEST = 0.002  # seconds; shorter times are not compared
REPEATS = 3
METHODS = ("match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")
CHARACTERS = " .#a1\n\t<[(\"'`*_-=:\\{/,A"
# What expressions are made from when they are used: gold answers that are expressions, a word, special tokens of a
# tokenizer, and the name of a collection.
MADE_FROM = {
    "pattern": "matching",
    "word": "retrieval.data_files",
    "marks": "retrieval.context_template",
    "uri": "knowledge.milvus.reader",
}


class Expression(NamedTuple):
    """A compiled expression, and the method that it is used with; equal names of parametrized tests are numbered."""

    place: str
    pattern: Any
    method: str


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if re.search(r"^import (re|regex)$", text, re.MULTILINE) and (
            find_spec("keras") or name[:3] != "tf."
        ):
            yield name, ast.parse(text)


def expressions() -> Iterator[Expression]:
    """All expressions of the package: those of `re.compile`, of functions such as `re.sub`, and in containers."""
    everything = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    for name, tree in modules():
        namespace, own = vars(import_module(f"ragweave.{name}")), ast.unparse(tree)
        for variable, value in list(namespace.items()):
            for number, pattern in enumerate(_patterns(value)):
                use = rf"\b{re.escape(variable)}\.({'|'.join(METHODS)})\b"
                used = re.findall(use, own) or re.findall(use, everything)
                for method in sorted(set(used or ["search"])):
                    yield Expression(f"{name}.{variable}[{number}]", pattern, method)
        for call in ast.walk(tree):
            is_use = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
            if is_use and isinstance(call.func.value, ast.Name) and call.func.value.id in ("re", "regex"):
                yield from _inline(name, call, namespace)


def _patterns(value: object) -> Iterator[Any]:
    if isinstance(value, re.Pattern | regex.Pattern):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _patterns(item)


def _inline(name: str, call: ast.Call, namespace: dict[str, Any]) -> Iterator[Expression]:
    assert isinstance(call.func, ast.Attribute)
    method = call.func.attr
    if method not in (*METHODS, "compile"):
        return
    try:
        pattern = eval(ast.unparse(call.args[0]), namespace)
    except NameError as error:
        assert MADE_FROM.get(error.name) == name, (
            f"{name}: compile {ast.unparse(call)} when the module is loaded"
        )
        return
    if method != "compile":
        yield Expression(f"{name}:{call.lineno}", re.compile(pattern), method)


def attacks(pattern: Any) -> Iterator[Callable[[int], str]]:
    """Texts of any size that repeat what a part of the expression matches, after what precedes that part."""
    for character in CHARACTERS:
        yield lambda n, c=character: c * n + "\0"
    with_pairs = ("A. ", "a #", " \n", "\n ", ". ", '."', "<!--", "a_", "a-", "1.", "[[", "]]", "``")
    for pair in with_pairs:
        yield lambda n, p=pair: p * (n // len(p)) + "\0"
    try:
        source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
        items = parser.parse(source, pattern.flags & ~re.UNICODE)
    except re.error:
        return  # the syntax of the package regex
    for before, pumped in _repetitions(items, ""):
        for end in ("\0", "\n\0", "a", " a"):
            yield lambda n, b=before, p=pumped, e=end: b + p * (n // len(p)) + e
            yield lambda n, b=before, p=pumped, e=end: (b + p) * (n // len(b + p)) + e


def _repetitions(items: Any, before: str) -> Iterator[tuple[str, str]]:
    """The repetitions in an expression: what a text has before each, and what it repeats."""
    for operation, argument in items:
        if operation in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            for sample in {_sample(argument[2], variant) for variant in range(4)}:
                if sample:
                    yield before, sample
            yield from _repetitions(argument[2], before)
        elif operation is codes.SUBPATTERN:
            yield from _repetitions(argument[3], before)
        elif operation is codes.BRANCH:
            for branch in argument[1]:
                yield from _repetitions(branch, before)
        elif operation is codes.ATOMIC_GROUP:
            yield from _repetitions(argument, before)
        before += _sample([(operation, argument)], 0)
    if before:
        yield "", before


def _sample(items: Any, variant: int) -> str:
    """A short text that an expression matches; variants take other characters of sets and other branches."""
    text = ""
    for operation, argument in items:
        if operation is codes.LITERAL:
            text += chr(argument)
        elif operation is codes.NOT_LITERAL:
            text += "x" if argument != ord("x") else "y"
        elif operation is codes.ANY:
            text += "x .#"[variant % 4]
        elif operation is codes.IN:
            text += _member(argument, variant)
        elif operation in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            text += _sample(argument[2], variant) * max(argument[0], min(argument[1], variant % 2))
        elif operation is codes.SUBPATTERN:
            text += _sample(argument[3], variant)
        elif operation is codes.ATOMIC_GROUP:
            text += _sample(argument, variant)
        elif operation is codes.BRANCH:
            text += _sample(argument[1][variant % len(argument[1])], variant)
    return text


def _member(members: Any, variant: int) -> str:
    """A character of a set."""
    members = list(members)
    if members[0][0] is codes.NEGATE:
        compiled = [_member([member], 0) for member in members[1:]]
        return next(c for c in "x #.y1-"[variant:] + "zé\u2603" if c not in compiled)
    operation, argument = members[variant % len(members)]
    if operation is codes.LITERAL:
        return chr(argument)
    if operation is codes.RANGE:
        return chr(argument[0])
    kinds = {codes.CATEGORY_SPACE: " ", codes.CATEGORY_DIGIT: "1", codes.CATEGORY_WORD: "a"}
    return kinds.get(argument, "-" if argument is codes.CATEGORY_NOT_WORD else "x")


def seconds(expression: Expression, text: Any) -> float:
    """The shortest time that an expression takes for a text: what else the machine does makes others longer."""
    times, empty = [], ""
    if isinstance(expression.pattern.pattern, bytes):
        text, empty = text.encode(), b""
    method = getattr(expression.pattern, expression.method)
    for _ in range(REPEATS):
        start = time.process_time()
        if expression.method in ("sub", "subn"):
            method(empty, text)
        elif expression.method == "finditer":
            list(method(text))
        else:
            method(text)
        times.append(time.process_time() - start)
        if times[0] < FASTEST:
            break
    return min(times)


EXPRESSIONS = list(expressions())


def test_expressions_are_found():
    places = {expression.place for expression in EXPRESSIONS}
    assert len(places) > 60
    assert {"knowledge.ingest.chunking._ENDS[0]", "knowledge.ingest.loaders.markup._TAGS[0]"} <= places


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda e: f"{e.place}-{e.method}")
def test_time_is_in_proportion_to_the_text(expression):
    small, large = SIZES
    for attack in attacks(expression.pattern):
        if (longest := seconds(expression, attack(large))) > FASTEST:
            growth = longest / max(seconds(expression, attack(small)), 1e-6)
            assert growth < 2 * large / small, f"{attack(60)!r} repeated: {longest:.3f} s, {growth:.0f} times"


@pytest.mark.parametrize("pattern", [r"a+b", r"[ \t]+$", r"(?:a|b)+?c", r"# (.*?\S)[ \t]*#*[ \t]*$"])
def test_quadratic_expressions_are_noticed(pattern):
    with pytest.raises(AssertionError, match="repeated"):
        test_time_is_in_proportion_to_the_text(Expression("", re.compile(pattern), "search"))
