"""Reading pickled data without executing anything in it.

A pickle is a program for a small stack machine. Python's own disassembler splits it into instructions, and this
module implements those that make lists, tuples, dictionaries, sets, strings, bytes and numbers. Instructions that
import, call or set anything are not implemented, so no pickle can reach code.

`pickle.Unpickler` with a refusing ``find_class`` is five times as fast, but it is not safe: it returns objects that
other libraries registered as extensions, crashes the interpreter on keys of deeply nested tuples, and lets a file of
ten bytes allocate gigabytes. The tests contain a file for each of these.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ragweave.errors import IndexDataError

# Instructions whose argument is the value.
_VALUES = (
    *("INT", "LONG", "FLOAT", "UNICODE"),  # protocol 0, written out in ASCII
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    **{"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set},
}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_WITHOUT_EFFECT = ("PROTO", "FRAME", "STOP")


def load_plain_data(path: Path) -> Any:
    """Read a pickle of plain data, of any protocol.

    Raises `IndexDataError` if the file is missing or damaged, or holds anything but lists, tuples, dictionaries,
    sets, strings, bytes and numbers. Nothing in it is executed. Sets before protocol 4 and bytes before protocol 3
    are pickled as function calls and refused.
    """
    try:
        # A read of a mapped file ends with the file, whatever length a damaged instruction claims.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _StackMachine().run(content)
    except (OSError, ValueError, IndexError) as error:
        raise IndexDataError(
            f"{path} does not hold plain data ({error}): only lists, tuples, dictionaries, sets, strings, bytes and "
            "numbers are read from pickles."
        ) from error


class _StackMachine:
    """A stack with marks, and a memory of values that occur again."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._below_marks: list[list[Any]] = []
        self._memory: list[Any] = []
        self._actions: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(_VALUES, self._push),
            **{name: partial(self._make, new) for name, new in _NEW.items()},
            **dict.fromkeys(_PUTS, self._put),
            **dict.fromkeys(_GETS, self._get),
            **dict.fromkeys(_WITHOUT_EFFECT, lambda _: None),
            "MARK": self._mark,
            "LIST": lambda _: self._push(self._since_mark()),
            "TUPLE": lambda _: self._push(tuple(self._since_mark())),
            "DICT": lambda _: self._push(_dictionary(self._since_mark())),
            "FROZENSET": lambda _: self._push(frozenset(_hashable(self._since_mark()))),
            "TUPLE1": lambda _: self._push(tuple(self._last(1))),
            "TUPLE2": lambda _: self._push(tuple(self._last(2))),
            "TUPLE3": lambda _: self._push(tuple(self._last(3))),
            "APPEND": lambda _: self._add(list, self._last(1)),
            "APPENDS": lambda _: self._add(list, self._since_mark()),
            "SETITEM": lambda _: self._add(dict, self._last(2)),
            "SETITEMS": lambda _: self._add(dict, self._since_mark()),
            "ADDITEMS": lambda _: self._add(set, self._since_mark()),
        }

    def run(self, content: mmap.mmap) -> Any:
        for instruction, argument, position in pickletools.genops(cast(IO[bytes], content)):
            action = self._actions.get(instruction.name)
            if action is None:
                raise ValueError(f"instruction {instruction.name} at byte {position}")
            action(argument)
        if self._below_marks or len(self._stack) != 1:
            raise ValueError("it is incomplete")
        return self._stack[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _make(self, new: Callable[[], Any], _: None) -> None:
        self._push(new())

    def _put(self, number: int | None) -> None:
        value = self._stack[-1]
        if number is None or number == len(self._memory):
            self._memory.append(value)
        elif 0 <= number < len(self._memory):
            self._memory[number] = value
        else:  # Python counts from 0; any other number would allocate memory up to it
            raise ValueError(f"value {number} is stored out of order")

    def _get(self, number: int) -> None:
        if not 0 <= number < len(self._memory):
            raise ValueError(f"value {number} has not been stored")
        self._push(self._memory[number])

    def _mark(self, _: None) -> None:
        self._below_marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        values = self._stack
        self._stack = self._below_marks.pop()
        return values

    def _last(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        if len(values) < count:
            raise ValueError("values are missing")
        del self._stack[-count:]
        return values

    def _add(self, kind: type[list[Any] | dict[Any, Any] | set[Any]], values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, kind):
            raise ValueError(f"items are added to something other than a {kind.__name__}")
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, dict):
            target.update(_dictionary(values))
        else:
            target.update(_hashable(values))


def _dictionary(keys_and_values: list[Any]) -> dict[Any, Any]:
    return dict(zip(_hashable(keys_and_values[::2]), keys_and_values[1::2], strict=True))


def _hashable(values: list[Any]) -> list[Any]:
    # Hashing a tuple recurses without limit, and a pickle can nest tuples deep enough to crash the interpreter.
    for value in values:
        if not isinstance(value, (str, bytes, int, float, type(None))):
            raise ValueError(f"a {type(value).__name__} is used as a key")
    return values
