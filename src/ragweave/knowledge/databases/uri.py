"""Where a knowledge base is: the path of a folder, or the URI of a database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ragweave.errors import ConfigurationError

DEFAULT_NAME = "ragweave"
"""The table or collection where the URI names none."""

MILVUS_TOKEN = "MILVUS_TOKEN"  # noqa: S105 (a variable's name)
"""The environment variable with the token, or ``user:password``, of a Milvus server."""

_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# A Path has made one slash of two.
_URI_AS_PATH = re.compile(r"(milvus|postgres|postgresql):/(?!/)", re.IGNORECASE)
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


@dataclass(frozen=True, slots=True)
class MilvusUri:
    """A knowledge base in Milvus.

    Attributes:
        address: What the client connects to: ``http://host:port``, or the absolute path of a file of Milvus Lite.
        database: The database on the server; empty for its default.
        collection: The collection.
        shown: The URI; tokens are no part of it.
        host: What messages call the server.
    """

    address: str
    database: str
    collection: str
    shown: str
    host: str

    @property
    def file(self) -> Path | None:
        """The file of Milvus Lite; ``None`` for a server."""
        return None if "://" in self.address else Path(self.address)


def is_uri(place: Path | str) -> bool:
    """Whether a place is a database, and not a folder.

    Raises:
        ConfigurationError: It is a URI that was made a `Path`, which drops a slash.
    """
    if isinstance(place, Path) and _URI_AS_PATH.match(str(place)):
        raise ConfigurationError(f"{place} was a URI: give it as a string, a Path makes one slash of two.")
    return isinstance(place, str) and _URI.match(place) is not None


def parse(uri: str) -> PostgresUri | MilvusUri:
    """Take a URI apart.

    Args:
        uri: ``postgresql://user@host/db?table=kb`` (what libpq takes, and the table), ``milvus:///folder/kb.db`` or
            ``milvus://./kb.db`` (a file of Milvus Lite), or ``milvus://host:19530/db?collection=kb&secure=true``.

    Raises:
        ConfigurationError: It is none of these.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme in {"postgresql", "postgres"}:
        return _postgres(uri)
    if scheme == "milvus":
        return _milvus(uri)
    raise ConfigurationError(
        f"There is no database for {scheme}://: give postgresql://user@host/db?table=NAME, "
        "milvus://host:19530/?collection=NAME, milvus:///path/FILE.db?collection=NAME, or the path of a folder."
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


def _milvus(uri: str) -> MilvusUri:
    parts = urlsplit(uri)
    parameters = _parameters(parts.query)
    collection = parameters.pop("collection", DEFAULT_NAME)
    secure = parameters.pop("secure", "false")
    if not _NAME.fullmatch(collection):
        raise ConfigurationError(
            f"The collection {collection!r} is no plain name: give letters, digits and underscores, at most 50."
        )
    if parameters:
        raise ConfigurationError(
            f"A milvus URI has no parameter {', '.join(map(repr, sorted(parameters)))}; it has collection and secure."
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"A milvus URI holds no user or password: put the token into the environment variable {MILVUS_TOKEN}."
        )
    shown = _joined("milvus", parts.netloc, parts.path, {"collection": collection})
    if parts.netloc in {"", "."}:
        path = Path(f"{parts.netloc}{unquote(parts.path)}")
        if path.suffix != ".db":
            raise ConfigurationError(f"The name of a file of Milvus Lite ends in .db, not as in {path}.")
        return MilvusUri(str(path.absolute()), "", collection, shown, str(path))
    if secure not in {"true", "false"}:
        raise ConfigurationError(f"secure is {secure!r}: give true or false.")
    host = parts.netloc if re.search(r":\d+$", parts.netloc) else f"{parts.netloc}:19530"
    return MilvusUri(
        address=f"{'https' if secure == 'true' else 'http'}://{host}",
        database=unquote(parts.path.strip("/")),
        collection=collection,
        shown=shown,
        host=host,
    )


def _parameters(query: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _joined(scheme: str, netloc: str, path: str, parameters: dict[str, str]) -> str:
    query = "&".join(f"{quote(name)}={quote(value, safe='/')}" for name, value in parameters.items())
    return f"{scheme}://{netloc}{path}{'?' if query else ''}{query}"
