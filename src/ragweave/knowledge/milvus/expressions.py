"""Conditions on passages as filter expressions of Milvus; see `ragweave.knowledge.filters`."""

from __future__ import annotations

import json
from typing import Any

from ragweave.knowledge.filters import FIELDS, Combination, Comparison, Condition, parse, type_of
from ragweave.knowledge.store import NUMBERS

_OPPOSITES = {"==": "!=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_ALL, _NONE = "row >= 0", "row < 0"


def facts_of(metadata: str) -> dict[str, Any]:
    """The metadata of a passage, and the type of each value as a name beside it, such as ``year:float``.

    In Milvus, a comparison with a missing value, or one of another type, is neither true nor false, and nor is its
    negation. Whether a name exists is always true or false.
    """
    facts = json.loads(metadata)
    return facts | {f"{name}:{type_of(value).__name__}": True for name, value in facts.items()}


def expression(text: str | None) -> str:
    """A condition as a filter expression; ``None`` for all passages."""
    return "" if text is None else _translated(parse(text), negated=False)


def _translated(condition: Condition, *, negated: bool) -> str:
    if isinstance(condition, Combination):
        if condition.operator == "not":
            return _translated(condition.parts[0], negated=not negated)
        operator = "or" if (condition.operator == "and") == negated else "and"
        return f" {operator} ".join(f"({_translated(part, negated=negated)})" for part in condition.parts)
    if condition.operator == "in":
        parts = tuple(Comparison(condition.name, "==", value) for value in condition.value)
        if parts:
            return _translated(Combination("or", parts), negated=negated)
        return _ALL if negated else _NONE
    if (operand := _operand(condition)) is None:
        return _ALL if negated else _NONE
    present, value_of = operand
    if condition.operator == "known":
        return f"not ({present})" if negated else present
    value = json.dumps(condition.value, ensure_ascii=False)
    if condition.operator == "contains":
        test = f"{'not ' * negated}json_contains({value_of}, {value})"
    else:
        operator = _OPPOSITES[condition.operator] if negated else condition.operator
        test = f"{value_of} {operator} {value}"
    return f"(not ({present})) or ({test})" if negated else f"({present}) and ({test})"


def _operand(one: Comparison) -> tuple[str, str] | None:
    """An expression that is true where a passage has a value to compare, and that value; ``None`` if none has one."""
    kind = "list" if one.operator == "contains" else type_of(one.value).__name__
    if one.name not in FIELDS:
        name = json.dumps(one.name, ensure_ascii=False)
        typed = name if one.operator == "known" else json.dumps(f"{one.name}:{kind}", ensure_ascii=False)
        return f"exists facts[{typed}]", f"facts[{name}]"
    is_number = one.name in NUMBERS
    if one.operator != "known" and kind != ("float" if is_number else "str"):
        return None
    # 0 or an empty text means that an attribute does not apply.
    return f"{one.name} != {0 if is_number else json.dumps('')}", one.name
