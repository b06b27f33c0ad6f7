"""Number formats of spreadsheets: turns a stored number into the text that its cell shows (ECMA-376, 18.8.31)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

BUILT_IN = {
    **{1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00", 15: "d-mmm-yy"},
    **{16: "d-mmm", 17: "mmm-yy", 18: "h:mm AM/PM", 19: "h:mm:ss AM/PM", 20: "h:mm", 21: "h:mm:ss"},
    **{37: "#,##0;(#,##0)", 38: "#,##0;(#,##0)", 39: "#,##0.00;(#,##0.00)", 40: "#,##0.00;(#,##0.00)"},
    **{32: "h:mm", 33: "h:mm:ss", 34: "h:mm", 35: "h:mm:ss"},
    **{45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0"},
    # Programs show these in the order that is usual in the reader's country. This order is unambiguous.
    **dict.fromkeys((14, *range(27, 32), 36, *range(50, 59)), "yyyy-mm-dd"),
    22: "yyyy-mm-dd h:mm",
}
"""Codes of the formats that a file uses by their number alone; others mean "General"."""

_TOKEN = re.compile(
    r"""(?P<literal>"[^"]*"?|\\.)|(?P<space>[_*].)|(?P<elapsed>\[(?:h+|m+|s+)\])|(?P<bracket>\[[^\]]{0,80}\])
    |(?P<general>General|@)|(?P<ampm>AM/PM|A/P)|(?P<date>y+|m+|d+|h+|s+(?:\.0+)?|(?-i:e+|b+))|(?P<digit>[0?\#])
    |(?P<point>\.)|(?P<comma>,)|(?P<percent>%)|(?P<exponent>E[+-])|(?P<end>;)|(?P<other>.)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_PRECISION = Context(prec=15, rounding=ROUND_HALF_UP)  # the precision of spreadsheet programs
_LAST_DAY = 2958466  # 9999-12-31, exclusive


class _Token(NamedTuple):
    kind: str
    text: str


_Section = tuple[_Token, ...]


def shown(value: str, code: str, *, epoch_1904: bool = False) -> str:
    """The text that a cell shows for a number; that of "General" where the format does not fit.

    The code is one such as ``"0.0%"`` or ``"d mmm yyyy"``; empty for "General". With ``epoch_1904``, day 0 is
    1904-01-01, as in files of old Macintosh programs. A value that is not a number stays as it is.
    """
    try:
        number = Decimal(value)
        if not number.is_finite():
            return value
    except InvalidOperation:
        return value
    try:
        section, number_shown = _section_for(number, _sections(code))
        kinds = [token.kind for token in section]
        if {"date", "ampm", "elapsed"} & set(kinds):
            return _date(number_shown, section, epoch_1904)
        return _number(number_shown, section, kinds)
    except (InvalidOperation, OverflowError, ValueError):
        return _general(number)


@lru_cache(maxsize=1024)
def _sections(code: str) -> tuple[_Section, ...]:
    """The sections of a code, which apply to positive numbers, negative numbers and zero."""
    sections: list[list[_Token]] = [[]]
    for match in _TOKEN.finditer(code[:1000]):
        if match.lastgroup == "end":
            sections.append([])
        else:
            sections[-1].append(_Token(match.lastgroup or "", match[0]))
    return tuple(map(tuple, sections[:3]))


def _section_for(number: Decimal, sections: tuple[_Section, ...]) -> tuple[_Section, Decimal]:
    """The section for a number, and the number without the sign that the section writes by itself."""
    if any(token.kind == "bracket" and token.text[1] in "<>=" for section in sections for token in section):
        raise ValueError("formats with conditions are not supported")
    if number < 0 and len(sections) > 1:
        return sections[1], -number
    return sections[2 if number == 0 and len(sections) > 2 else 0], number


def _plain(token: _Token) -> str:
    """The text of a token that stands for itself."""
    if token.kind == "literal":
        return token.text[1:] if token.text[0] == "\\" else token.text.strip('"')
    if token.kind == "space":
        return " " if token.text[0] == "_" else ""
    if token.kind == "bracket":  # [$€-407] is a currency; colours show nothing
        return token.text[2:-1].partition("-")[0] if token.text[1:2] == "$" else ""
    return token.text


# --- Numbers ---


def _general(number: Decimal) -> str:
    """A number without a format: whole numbers without a point, others with up to 15 digits."""
    if not number:
        return "0"
    is_long = number != number.to_integral_value() or number.adjusted() > 20
    number = number.normalize(_PRECISION) if is_long else number.quantize(Decimal(1))
    return f"{number:f}" if -10 < number.adjusted() < 21 else f"{number:E}"


def _number(number: Decimal, tokens: _Section, kinds: list[str]) -> str:
    if "digit" not in kinds:
        is_blank = bool(tokens) and "general" not in kinds
        parts = [_general(number) if token.kind == "general" else _plain(token) for token in tokens]
        return "".join(parts).strip() if tokens else "" if is_blank else _general(number)
    if _Token("other", "/") in tokens:
        raise ValueError("fractions are shown with decimals")
    last = len(kinds) - 1 - kinds[::-1].index("digit")
    end = kinds.index("exponent") if "exponent" in kinds else last + 1
    point = kinds.index("point") if "point" in kinds[:end] else end
    # A comma between digits groups them, and each comma after all of them divides by a thousand.
    whole = [position for position in range(point) if kinds[position] == "digit"]
    is_grouped = bool(whole) and "comma" in kinds[whole[0] : whole[-1]]
    scale = kinds[last:].count("comma") + (
        kinds[whole[-1] : point].count("comma") if whole and point < end else 0
    )
    tokens = tuple(_Token("space", "*") if token.kind == "comma" else token for token in tokens)
    number = _PRECISION.plus(number).scaleb(2 * kinds.count("percent") - 3 * scale)
    exponent = 0
    if "exponent" in kinds and number:
        exponent = number.adjusted() // max(1, len(whole)) * max(1, len(whole))
        number = number.scaleb(-exponent)
    decimals = kinds[point:end].count("digit")
    digits = f"{abs(number).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):f}"
    integer, _, fraction = digits.partition(".")
    parts = [
        "-" if number < 0 and digits.strip("0.") else "",
        *_whole(integer.lstrip("0"), tokens[:point], is_grouped),
    ]
    parts += _decimals(fraction, tokens[point:end])
    if "exponent" in kinds:
        sign = "-" if exponent < 0 else tokens[end].text[1:].strip("-")
        parts += ["E", sign, *_whole(str(abs(exponent)) if exponent else "", tokens[end + 1 :], False)]
    else:
        parts += map(_plain, tokens[end:])
    return "".join(parts).strip()


def _whole(digits: str, tokens: _Section, is_grouped: bool) -> list[str]:
    """Write the digits before the point in their places, from right to left."""
    parts: list[str] = []
    written, left = 0, sum(token.kind == "digit" for token in tokens)
    for token in reversed(tokens):
        if token.kind != "digit":
            parts.append(_plain(token))
            continue
        left -= 1
        digits, here = ("", digits) if left == 0 else (digits[:-1], digits[-1:])
        for digit in reversed(here or ("0" if token.text == "0" else "")):
            parts += [",", digit] if is_grouped and written and written % 3 == 0 else [digit]
            written += 1
    return parts[::-1]


def _decimals(digits: str, tokens: _Section) -> list[str]:
    """Write the point and the digits after it in their places; places other than ``0`` drop zeros at the end."""
    parts: list[str] = []
    for token in tokens:
        if token.kind == "digit":
            parts.append(digits[:1] if token.text == "0" or digits.strip("0") else "")
            digits = digits[1:]
        else:
            parts.append(_plain(token))
    return parts if "".join(parts) != "." else []


# --- Dates and times ---


def _date(number: Decimal, tokens: _Section, epoch_1904: bool) -> str:
    if not 0 <= number < _LAST_DAY:
        raise ValueError("no such date")
    # Rounded to what is shown, or 0.999999 of a second becomes the second before.
    per_second = 10 ** max(
        (len(token.text.partition(".")[2]) for token in tokens if token.kind == "date"), default=0
    )
    seconds, below = divmod(round(Fraction(number) * 86400 * per_second), per_second)
    # Day 60 is 1900-02-29, which did not exist: the error is copied from Lotus 1-2-3, to keep its files right.
    start = datetime(1904, 1, 1) if epoch_1904 else datetime(1899, 12, 30 if seconds >= 60 * 86400 else 31)
    moment = start + timedelta(seconds=seconds)
    elapsed = {"h": seconds // 3600, "m": seconds // 60, "s": seconds}
    is_12_hours = any(token.kind == "ampm" for token in tokens)
    units = [
        token.text.strip("[")[0].lower() if token.kind in {"date", "elapsed"} else "" for token in tokens
    ]
    parts: list[str] = []
    for position, (token, unit) in enumerate(zip(tokens, units, strict=True)):
        if token.kind == "elapsed":
            parts.append(str(elapsed[unit]).zfill(len(token.text) - 2))
        elif token.kind == "ampm":
            parts.append("AM" if moment.hour < 12 else "PM")
        elif token.kind != "date":
            parts.append(_plain(token))
        elif unit == "s":
            whole, dot, fraction = token.text.partition(".")
            parts.append(f"{moment.second:0{len(whole)}}{dot}" + (f"{below:0{len(fraction)}}" if dot else ""))
        else:
            # An "m" after hours or before seconds means minutes.
            before = next(filter(None, reversed(units[:position])), "")
            after = next(filter(None, units[position + 1 :]), "")
            is_minute = unit == "m" and len(token.text) < 3 and (before == "h" or after == "s")
            parts.append(_date_part(moment, "n" if is_minute else unit, len(token.text), is_12_hours))
    return "".join(parts).strip()


def _date_part(moment: datetime, unit: str, length: int, is_12_hours: bool) -> str:
    """A part of a date or time: ``unit`` is a letter of the code, or "n" for minutes."""
    if unit in "yeb":
        return f"{moment.year:04}" if length > 2 or unit == "e" else f"{moment.year % 100:02}"
    if unit in "md" and length > 2:
        name = _MONTHS.split()[moment.month - 1] if unit == "m" else _DAYS.split()[moment.weekday()]
        return name[: {3: 3, 5: 1}.get(length)]
    hour = (moment.hour % 12 or 12) if is_12_hours else moment.hour
    return f"{ {'m': moment.month, 'n': moment.minute, 'd': moment.day, 'h': hour}[unit]:0{length}}"
