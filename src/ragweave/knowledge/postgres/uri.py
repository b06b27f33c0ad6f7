"""The URI of a knowledge base in PostgreSQL. Passwords stay out of everything that is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ragweave.errors import ConfigurationError, require_extra

DEFAULT_TABLE = "ragweave"

_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_URI_AS_PATH = re.compile(r"postgres(ql)?:/(?!/)", re.IGNORECASE)
# Names get suffixes, and PostgreSQL cuts names off at 63 bytes.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")


@dataclass(frozen=True, slots=True)
class PostgresUri:
    """Where in PostgreSQL a knowledge base is.

    Attributes:
        conninfo: The connection string for libpq; may contain a password.
        table: The table, after its schema if one was named.
        shown: The URI without the password.
        host: The server's name in messages.
        secrets: What messages must not contain.
    """

    conninfo: str
    table: tuple[str, ...]
    shown: str
    host: str
    secrets: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"PostgresUri({self.shown!r})"

    def without_secrets(self, text: str) -> str:
        """Hide passwords in a message of libpq, which quotes a URI that it cannot read."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def is_uri(path: Path | str) -> bool:
    """Whether a path is the URI of a database, and not a folder.

    Raises:
        ConfigurationError: It is a URI that was turned into a `Path`, which drops a slash.
    """
    if isinstance(path, Path) and _URI_AS_PATH.match(str(path)):
        raise ConfigurationError(f"'{path}' was a URI, and Path dropped a slash. Pass the URI as a string.")
    return isinstance(path, str) and _URI.match(path) is not None


def location_of(path: Path | str) -> Path | PostgresUri:
    """The folder or database that a path names."""
    return parse_uri(str(path)) if is_uri(path) else Path(path)


def parse_uri(uri: str) -> PostgresUri:
    """Parse the URI of a knowledge base, before anything imports PostgreSQL's client.

    Args:
        uri: ``postgresql://user@host/db?table=kb``: what libpq accepts, and the table.

    Raises:
        ConfigurationError: It is the URI of something else, or the table's name is not plain.
        MissingExtraError: PostgreSQL's client is not installed.
    """
    parts = urlsplit(uri)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ConfigurationError(
            f"There is no database for {parts.scheme}://. Give postgresql://user@host/db?table=NAME, or the path of "
            "a folder."
        )
    require_extra("psycopg", "pgvector")
    require_extra("pgvector", "pgvector")
    pairs = (part.partition("=") for part in parts.query.split("&") if part)
    parameters = {unquote(name): unquote(value) for name, _, value in pairs}
    table = parameters.pop("table", DEFAULT_TABLE).split(".")
    if len(table) > 2 or not all(map(_NAME.fullmatch, table)):
        raise ConfigurationError(
            f"The table {'.'.join(table)!r} is not a plain name. Give letters, digits and underscores, at most 50, "
            "optionally after a schema and a dot."
        )
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    hidden = [value for name, value in parameters.items() if "password" in name]
    shown = {name: value for name, value in parameters.items() if "password" not in name}
    return PostgresUri(
        conninfo=_joined(parts.netloc, parts.path, parameters),
        table=tuple(table),
        shown=_joined(user + at + hosts, parts.path, {**shown, "table": ".".join(table)}),
        host=hosts or parameters.get("host") or "the local socket",
        secrets=tuple(filter(None, (password, unquote(password), *hidden, *map(quote, hidden)))),
    )


def _joined(netloc: str, path: str, parameters: dict[str, str]) -> str:
    query = "&".join(f"{quote(name)}={quote(value, safe='/')}" for name, value in parameters.items())
    return f"postgresql://{netloc}{path}{'?' if query else ''}{query}"
