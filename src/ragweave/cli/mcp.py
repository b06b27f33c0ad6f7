"""``ragweave mcp``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from typing import Annotated

import typer

from ragweave.cli import options, takes_options
from ragweave.cli.console import stderr
from ragweave.cli.pipelines import AnswerOptions
from ragweave.errors import ConfigurationError, require_extra


@takes_options
def mcp(
    kb: options.KnowledgeBaseOption,
    *,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve streamable HTTP at this address, not over standard input and output.",
        ),
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Let clients add and delete documents.")
    ] = False,
    api_key_file: options.ApiKeyFile = None,
    given: AnswerOptions,
) -> None:
    """Serve a knowledge base to agents and desktop clients by the Model Context Protocol (MCP).

    Clients start the command themselves and talk to it over standard input and output. With --http, it is a server
    with the endpoint /mcp. The tools are search, answer and list_sources, and with --allow-changes add and delete.

    Examples:
      ragweave mcp --kb kb
      ragweave mcp --kb kb --http 127.0.0.1:8100
      ragweave mcp --kb kb --allow-changes --min-confidence 0.5
    """
    for package in ("mcp", "fastapi", "uvicorn", "prometheus_client"):
        require_extra(package, "mcp")
    from ragweave.serving.app import listen
    from ragweave.serving.mcp_server import create_mcp_server, mcp_app
    from ragweave.serving.server import create_server
    from ragweave.serving.settings import LOOPBACK, KeyRing, Limits, ServingSettings

    host, port = ("", 0) if http is None else _address(http)
    if http is None and api_key_file is not None:
        raise ConfigurationError("Standard input needs no key. Use --api-key-file with --http.")
    if http is not None and host not in LOOPBACK and api_key_file is None:
        raise ConfigurationError(
            f"Anyone who can reach {host} could use this server. Require a key with --api-key-file, or listen on "
            "127.0.0.1."
        )
    answering = given.answering()
    settings = ServingSettings(
        **answering,
        limits=Limits.with_defaults(**answering),
        keys=None if api_key_file is None else KeyRing.from_file(api_key_file),
    )
    with redirect_stdout(sys.stderr):  # standard output is reserved for the protocol
        pipeline = given.load(kb)
    server = create_mcp_server(pipeline, settings, allow_changes=allow_changes)
    if http is None:
        server.run()
        return
    with listen(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}/mcp"
        stderr().print(f"Serving on {url} (Ctrl-C to stop)", markup=False, soft_wrap=True)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after a graceful shutdown
            create_server(mcp_app(server, settings, host), settings).run(sockets=[listener])


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"--http is {text!r}: give HOST:PORT, such as 127.0.0.1:8100.")
    return host.strip("[]"), int(port)
