"""Conditions on passages as SQL; see `ragweave.knowledge.filters`. All values are bound."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, LiteralString

from psycopg import sql

from ragweave.knowledge.filters import FIELDS, Combination, Comparison, Condition, parse, type_of
from ragweave.knowledge.store import NUMBERS

_KINDS = {str: "string", bool: "boolean", float: "number"}
_OPERATORS: dict[str, LiteralString] = {"==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Where:
    """A condition as SQL, and the values that it binds; ``None`` for all passages."""

    def __init__(self, text: str | None) -> None:
        self.values: dict[str, Any] = {}  # the values by name
        # an expression that is true or false, never null
        self.condition: sql.Composable = sql.SQL("true") if text is None else self._sql(parse(text))

    def _sql(self, condition: Condition) -> sql.Composable:
        if isinstance(condition, Comparison):
            return self._comparison(condition)
        parts = [sql.SQL("({})").format(self._sql(part)) for part in condition.parts]
        if condition.operator == "not":
            return sql.SQL("NOT {}").format(*parts)
        return sql.SQL(" AND " if condition.operator == "and" else " OR ").join(parts)

    def _comparison(self, one: Comparison) -> sql.Composable:
        if one.operator == "in":
            parts = tuple(Comparison(one.name, "==", value) for value in one.value)
            return self._sql(Combination("or", parts)) if parts else sql.SQL("false")
        if one.name in FIELDS:
            return self._field(one)
        value = sql.SQL("metadata::jsonb -> {}").format(sql.Literal(one.name))
        if one.operator == "known":
            return sql.SQL("({}) IS NOT NULL").format(value)
        kind = sql.Literal("array" if one.operator == "contains" else _KINDS[type_of(one.value)])
        if one.operator == "contains" or isinstance(one.value, bool):
            operator = sql.SQL("@>" if one.operator == "contains" else "=")
            test = sql.SQL("({}) {} to_jsonb({})").format(value, operator, self._bound(one.value))
        else:
            text = sql.SQL("metadata::jsonb ->> {}").format(sql.Literal(one.name))
            cast = sql.SQL('({}) COLLATE "C"' if isinstance(one.value, str) else "({})::numeric").format(text)
            test = sql.SQL("{} {} {}").format(cast, sql.SQL(_OPERATORS[one.operator]), self._bound(one.value))
        # The type is checked first, in a CASE, since no other expression guarantees an order.
        return sql.SQL("coalesce(CASE WHEN jsonb_typeof({}) = {} THEN {} END, false)").format(
            value, kind, test
        )

    def _field(self, one: Comparison) -> sql.Composable:
        """A comparison with an attribute of passages; 0 or an empty text means that it does not apply."""
        is_number = one.name in NUMBERS
        name = sql.SQL("nullif({}, {})").format(sql.Identifier(one.name), sql.Literal(0 if is_number else ""))
        if one.operator == "known":
            return sql.SQL("{} IS NOT NULL").format(name)
        if one.operator == "contains" or type_of(one.value) is not (float if is_number else str):
            return sql.SQL("false")
        column = name if is_number else sql.SQL('{} COLLATE "C"').format(name)
        operator = sql.SQL(_OPERATORS[one.operator])
        return sql.SQL("coalesce({} {} {}, false)").format(column, operator, self._bound(one.value))

    def _bound(self, value: Any) -> sql.Composable:
        name, kind = f"where{len(self.values)}", "text"
        if isinstance(value, bool):
            kind = "boolean"
        elif not isinstance(value, str):
            value, kind = Decimal(str(value)), "numeric"
        self.values[name] = value
        return sql.SQL("{}::{}").format(sql.Placeholder(name), sql.SQL(kind))
