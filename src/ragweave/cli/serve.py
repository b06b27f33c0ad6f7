"""``ragweave serve``."""

from __future__ import annotations

import faulthandler
import io
import re
from contextlib import suppress
from typing import Annotated

import typer

from ragweave.cli import options, takes_options
from ragweave.cli.console import stderr, warn
from ragweave.cli.pipelines import AnswerOptions
from ragweave.errors import ConfigurationError, require_extra

_NAMED = re.compile(r"([\w.-]+)=(.+)")


@takes_options
def serve(
    kb: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]KB",
            help="Folder or URI of a knowledge base; may be repeated, with a name for each.",
        ),
    ],
    given: AnswerOptions,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free port.")] = 8000,
    api_key_file: options.ApiKeyFile = None,
    admin_key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="API keys for changes of documents, one per line.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 8,
    max_wait: Annotated[
        float, typer.Option(min=0, help="Seconds that the first question of a batch waits for others.")
    ] = 0.01,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Questions that may wait; further ones are rejected (429).")
    ] = 64,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds until a request fails (504).")] = 60,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name that requests may use; may be repeated (default: loopback names when listening on "
            "loopback, otherwise any).",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose pages may call the service; may be repeated."),
    ] = None,
    keep_versions: Annotated[
        int, typer.Option(min=0, help="Number of older versions to keep after a change of documents.")
    ] = 10,
) -> None:
    """Serve answers from a knowledge base over HTTP: a web page, a JSON API, and an OpenAI-compatible API.

    Concurrent questions are batched. New versions of the knowledge base are loaded while the server runs. To stop
    it, press Ctrl-C: running requests are finished. Press it again to stop at once.

    Examples:
      ragweave serve --kb kb
      ragweave serve --kb minutes=kb --kb handbook=kb-2
      ragweave serve --kb kb --host 0.0.0.0 --port 80 --api-key-file keys.txt
      ragweave serve --kb kb --admin-key-file admin-keys.txt --max-batch 16 --deadline 30
    """
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require_extra(package, "serve")
    from ragweave.pipeline.loading import with_knowledge_base
    from ragweave.serving.app import create_app, listen
    from ragweave.serving.server import create_server
    from ragweave.serving.settings import LOOPBACK, Batching, KeyRing, Limits, ServingSettings

    # Wrong arguments fail before the model is loaded.
    bases = _named(kb)
    answering = given.answering()
    settings = ServingSettings(
        **answering,
        limits=Limits.with_defaults(max_queue, **answering),
        batching=Batching(max_batch=max_batch, max_wait=max_wait, max_queue=max_queue, deadline=deadline),
        keys=None if api_key_file is None else KeyRing.from_file(api_key_file),
        admin_keys=None if admin_key_file is None else KeyRing.from_file(admin_key_file),
        open_changes=host in LOOPBACK,
        allowed_hosts=(*(LOOPBACK if host in LOOPBACK else ()), *(allowed_host or ())),
        cors_origins=tuple(cors_origin or ()),
        keep_versions=keep_versions,
    )
    if host not in LOOPBACK and api_key_file is None:
        warn("Anyone who can reach this address can ask questions. Use --api-key-file to require a key.")
    first, *others = bases
    pipeline = given.load(bases[first])
    pipelines = {first: pipeline} | {name: with_knowledge_base(pipeline, bases[name]) for name in others}
    # Reading a truncated memory-mapped file kills the process with a signal; this prints a traceback first.
    with suppress(io.UnsupportedOperation):  # standard error is not a file
        faulthandler.enable(all_threads=False)
    with listen(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}"
        # The kernel queues connections until the server accepts them.
        stderr().print(f"Serving on {url} (Ctrl-C to stop)", soft_wrap=True)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after a graceful shutdown
            create_server(create_app(pipelines, settings), settings).run(sockets=[listener])


def _named(kbs: list[str]) -> dict[str, str]:
    """Map names to knowledge bases; a single knowledge base needs no name.

    Raises:
        ConfigurationError: One of several has no name, or two have the same name.
    """
    bases = dict((match[1], match[2]) if (match := _NAMED.fullmatch(kb)) else ("", kb) for kb in kbs)
    if len(bases) < len(kbs) or (len(kbs) > 1 and "" in bases):
        raise ConfigurationError("Give each knowledge base a name of its own, such as --kb minutes=kb.")
    return bases
