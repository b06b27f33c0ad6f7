"""Where a knowledge base is: the path of a folder, or the URI of a database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ragweave.errors import ConfigurationError

DEFAULT_NAME = "ragweave"
"""The table or collection where the URI names none."""

_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# A Path has made one slash of two.
_URI_AS_PATH = re.compile(r"(postgres|postgresql):/(?!/)", re.IGNORECASE)
# Names get suffixes, and PostgreSQL cuts off what is beyond 63 bytes.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")


@dataclass(frozen=True, slots=True)
class PostgresUri:
    """A knowledge base in PostgreSQL.

    Attributes:
        conninfo: What libpq connects with; it may hold a password.
        table: The table, after its schema where one was named.
        shown: The URI without the password.
        host: What messages call the server.
        secrets: What must not be in a message.
    """

    conninfo: str
    table: tuple[str, ...]
    shown: str
    host: str
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"PostgresUri({self.shown!r})"

    def without_secrets(self, text: str) -> str:
        """A text of libpq, which quotes the URI where it cannot read it."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def is_uri(place: Path | str) -> bool:
    """Whether a place is a database, and not a folder.

    Raises:
        ConfigurationError: It is a URI that was made a `Path`, which drops a slash.
    """
    if isinstance(place, Path) and _URI_AS_PATH.match(str(place)):
        raise ConfigurationError(f"{place} was a URI: give it as a string, a Path makes one slash of two.")
    return isinstance(place, str) and _URI.match(place) is not None


def parse(uri: str) -> PostgresUri:
    """Take a URI apart.

    Args:
        uri: ``postgresql://user@host/db?table=kb``: what libpq takes, and the table.

    Raises:
        ConfigurationError: It is none of these.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme in {"postgresql", "postgres"}:
        return _postgres(uri)
    raise ConfigurationError(
        f"There is no database for {scheme}://: give postgresql://user@host/db?table=NAME, or "
        "the path of a folder."
    )


def _postgres(uri: str) -> PostgresUri:
    parts = urlsplit(uri)
    parameters = _parameters(parts.query)
    table = parameters.pop("table", DEFAULT_NAME).split(".")
    if len(table) > 2 or not all(map(_NAME.fullmatch, table)):
        raise ConfigurationError(
            f"The table {'.'.join(table)!r} is no plain name: give letters, digits and underscores, at most 50, "
            "perhaps after a schema and a dot."
        )
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    hidden = [value for name, value in parameters.items() if "password" in name]
    shown = {name: value for name, value in parameters.items() if "password" not in name}
    return PostgresUri(
        conninfo=_joined("postgresql", parts.netloc, parts.path, parameters),
        table=tuple(table),
        shown=_joined(
            "postgresql",
            user + at + hosts,
            parts.path,
            {**shown, "table": ".".join(table)},
        ),
        host=hosts or parameters.get("host") or "the local socket",
        secrets=tuple(
            secret for secret in (password, unquote(password), *hidden, *map(quote, hidden)) if secret
        ),
    )


def _parameters(query: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _joined(scheme: str, netloc: str, path: str, parameters: dict[str, str]) -> str:
    query = "&".join(f"{quote(name)}={quote(value, safe='/')}" for name, value in parameters.items())
    return f"{scheme}://{netloc}{path}{'?' if query else ''}{query}"
