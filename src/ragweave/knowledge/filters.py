"""Conditions on the metadata of passages, such as ``year >= 2020 and lang == 'en'``.

A condition is parsed with Python's grammar into a tree of a few kinds of nodes; nothing is ever executed. Folders
evaluate the tree with Arrow's functions, PostgreSQL as SQL. A comparison is false where a passage lacks the name, or
has a value of another type than the literal.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError

Literal = str | int | float | bool

FIELDS = ("id", "document_id", "title", "source", "heading", "sheet", "page", "slide", "table_row", "line")
"""The attributes of a passage that conditions may name, besides its metadata."""

_LONGEST = 2000
_COMPARISONS = {ast.Eq: "==", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_MIRRORED = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ARROW = {"==": pc.equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}
_EXAMPLE = "Write comparisons of names and values, such as \"year >= 2020 and lang in ('en', 'de')\"."


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares a name with a value."""

    name: str
    # "==", "<", "<=", ">", ">=", "in" (the value is one of several), "contains" (a list of the passage holds
    # the value) or "known" (the passage has the name)
    operator: str
    value: Any = None  # the value, or the values of ``"in"``


@dataclass(frozen=True, slots=True)
class Combination:
    """``"and"`` or ``"or"`` of several conditions, or ``"not"`` of one."""

    operator: str
    parts: tuple[Condition, ...]


Condition = Comparison | Combination


@cache
def parse(text: str) -> Condition:
    """Parse a condition; raises `ConfigurationError`, which says what is wrong with it."""
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} characters")
        return _condition(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise _invalid(text, error.msg) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _invalid(text, str(error)) from error


def _invalid(text: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"The condition {text[:200]!r} is invalid: {reason}. {_EXAMPLE}")


def _condition(node: ast.expr) -> Condition:
    if isinstance(node, ast.BoolOp):
        operator = "and" if isinstance(node.op, ast.And) else "or"
        return Combination(operator, tuple(map(_condition, node.values)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _negated(_condition(node.operand))
    if not isinstance(node, ast.Compare):
        raise ValueError(f"{ast.unparse(node)[:80]!r} is not a comparison")
    sides = [node.left, *node.comparators]
    steps = zip(sides, node.ops, sides[1:], strict=False)
    parts = tuple(_comparison(left, operator, right) for left, operator, right in steps)
    return parts[0] if len(parts) == 1 else Combination("and", parts)


def _comparison(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Condition:
    if isinstance(operator, ast.NotEq | ast.NotIn | ast.IsNot):
        positive = {ast.NotEq: ast.Eq, ast.NotIn: ast.In, ast.IsNot: ast.Is}[type(operator)]()
        return _negated(_comparison(left, positive, right))
    if isinstance(left, ast.Name) == isinstance(right, ast.Name):
        raise ValueError(
            f"{ast.unparse(left)[:80]!r} is not compared with a name on one side and a value on the other"
        )
    if not isinstance(left, ast.Name):
        name = right.id  # type: ignore[attr-defined]
        if isinstance(operator, ast.In):
            return Comparison(name, "contains", _literal(left))
        if type(operator) not in _COMPARISONS:
            raise ValueError(f"the operator before {name!r} is none of ==, !=, <, <=, >, >=, in, not in")
        return Comparison(name, _MIRRORED[_COMPARISONS[type(operator)]], _literal(left))
    if isinstance(right, ast.Constant) and right.value is None and isinstance(operator, ast.Is | ast.Eq):
        return _negated(Comparison(left.id, "known"))
    if isinstance(operator, ast.In):
        if not isinstance(right, ast.Tuple | ast.List | ast.Set):
            raise ValueError(f"{ast.unparse(right)[:80]!r} is not a list of values")
        return Comparison(left.id, "in", tuple(map(_literal, right.elts)))
    if type(operator) not in _COMPARISONS:
        raise ValueError("'is' compares with None only")
    value = _literal(right)
    if isinstance(value, bool) and not isinstance(operator, ast.Eq):
        raise ValueError("True and False have no order")
    return Comparison(left.id, _COMPARISONS[type(operator)], value)


def _negated(condition: Condition) -> Condition:
    if isinstance(condition, Combination) and condition.operator == "not":
        return condition.parts[0]
    return Combination("not", (condition,))


def _literal(node: ast.expr) -> Literal:
    is_negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    value = getattr(node.operand if is_negative else node, "value", None)  # type: ignore[attr-defined]
    if not isinstance(value, str | int | float) or (is_negative and isinstance(value, bool | str)):
        raise ValueError(f"{ast.unparse(node)[:80]!r} is not a text, a number, True or False")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a text contains a NUL character")
    if not isinstance(value, str) and not abs(value) < 1e300:
        raise ValueError(f"the number {ast.unparse(node)[:80]} is too large")
    return -value if is_negative else value  # type: ignore[operator]


def names_of(condition: Condition) -> set[str]:
    """The names in a condition."""
    if isinstance(condition, Comparison):
        return {condition.name}
    return set().union(*map(names_of, condition.parts))


def check_names(text: str, known: Collection[str]) -> None:
    """Raise `ConfigurationError` if a condition names a column that no passage has."""
    if unknown := sorted(names_of(parse(text)) - set(known) - set(FIELDS)):
        columns = ", ".join([*sorted(known), *FIELDS])
        raise ConfigurationError(f"No passage has the column {', '.join(unknown)}. There are {columns}.")


class Columns:
    """The metadata and the attributes of the passages of an Arrow table, for conditions."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        # Passages of a document share its metadata, which is parsed once.
        texts, rows = _distinct(table["metadata"])
        records = [json.loads(text) for text in texts]
        names = dict.fromkeys(name for record in records for name in record if name not in FIELDS)
        self._values = {name: _Values([record.get(name) for record in records], rows) for name in names}
        self.names = tuple(self._values)

    def matches(self, condition: Condition) -> NDArray[np.bool_]:
        """Which rows a condition holds for, (N,)."""
        if isinstance(condition, Combination):
            parts = [self.matches(part) for part in condition.parts]
            if condition.operator == "not":
                return ~parts[0]
            return (np.logical_and if condition.operator == "and" else np.logical_or).reduce(parts)
        if condition.name in FIELDS and condition.name not in self._values:
            # 0 or an empty text means that an attribute does not apply.
            values, rows = _distinct(self._table[condition.name])
            self._values[condition.name] = _Values([value or None for value in values], rows)
        if condition.name not in self._values:
            return np.zeros(len(self._table), dtype=bool)
        return self._values[condition.name].matches(condition)


def _distinct(column: pa.ChunkedArray) -> tuple[list[Any], NDArray[np.int64]]:
    """The distinct values of a column of N rows, and which of them each row has, (N,)."""
    encoded = column.dictionary_encode().unify_dictionaries()
    rows = [np.zeros(0, np.int64), *(chunk.indices.to_numpy() for chunk in encoded.chunks)]
    return encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else [], np.concatenate(rows)


class _Values:
    """The values of one name, an Arrow array for each type, and which of them each of N rows has, (N,)."""

    def __init__(self, values: list[Any], rows: NDArray[np.int64]) -> None:
        self._rows, self._values = rows, values
        self._typed: dict[type, Any] = {}

    def matches(self, condition: Comparison) -> NDArray[np.bool_]:
        """Which rows a comparison holds for, (N,)."""
        return self._compare(condition.operator, condition.value)[self._rows]

    def _compare(self, operator: str, value: Any) -> NDArray[np.bool_]:
        if operator == "in":
            parts = [np.zeros(len(self._values), bool), *(self._compare("==", one) for one in value)]
            return np.logical_or.reduce(parts)
        if operator == "known":
            return np.array([one is not None for one in self._values], dtype=bool)
        if operator == "contains":
            return np.array([_holds(one, value) for one in self._values], dtype=bool)
        array = self._array(type_of(value))
        try:
            matches = _ARROW[operator](array, pa.scalar(value, array.type))
        except (pa.ArrowException, OverflowError):  # an integer that the column's type does not hold
            matches = _ARROW[operator](array.cast(pa.float64(), safe=False), pa.scalar(float(value)))
        return pc.fill_null(matches, False).to_numpy(zero_copy_only=False)

    def _array(self, kind: type) -> Any:
        """The values of a type as an array; the others are missing."""
        if kind not in self._typed:
            values = [one if one is not None and type_of(one) is kind else None for one in self._values]
            is_whole = all(one is None or (type(one) is int and abs(one) < 2**63) for one in values)
            types = {str: pa.string(), bool: pa.bool_(), float: pa.int64() if is_whole else pa.float64()}
            self._typed[kind] = pa.array(values, types[kind])
        return self._typed[kind]


def type_of(value: Any) -> type:
    """What a value can be compared with: ``str``, ``bool``, ``float`` for all numbers, or ``list``."""
    return float if type(value) in (int, float) else type(value)


def _holds(values: Any, value: Literal) -> bool:
    return isinstance(values, list) and any(type_of(one) is type_of(value) and one == value for one in values)
