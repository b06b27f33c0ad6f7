"""``ragweave serve``: answers over HTTP, and the page."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ragweave.cli.models import Beams, Device, GeneratorDtype, MaxNewTokens, NDocs, RagModel
from ragweave.cli.searching import Candidates, DenseWeight, FusedBy, Rerank, Retrieval

HELP = """Serve answers from a knowledge base over HTTP: a page, JSON, and what OpenAI's clients speak.

Questions that arrive together are answered together. A new version of the knowledge base is taken up while
answering. Interrupt it (Ctrl-C) to end it: what has begun is finished.

Examples:

  ragweave serve --kb kb

  ragweave serve --kb kb --host 0.0.0.0 --port 80 --api-key-file keys.txt

  ragweave serve --kb kb --admin-key-file admin-keys.txt --max-batch 16 --deadline 30
"""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    kb: Annotated[str, typer.Option("--kb", help="Folder or URI of the knowledge base.")],
    model: RagModel = "embedded",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8000,
    api_key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keys of which requests want one, one a line.")
    ] = None,
    admin_key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keys of which changes of documents want one.")
    ] = None,
    n_docs: NDocs = None,
    beams: Beams = 1,
    max_new_tokens: MaxNewTokens = 32,
    formulation: Annotated[
        Literal["token", "sequence"] | None,
        typer.Option(help="RAG-Token or RAG-Sequence where a request does not say (default: the model's)."),
    ] = None,
    retrieval: Retrieval = None,
    fusion: FusedBy = "weighted",
    dense_weight: DenseWeight = None,
    candidates: Candidates = 100,
    rerank: Rerank = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 8,
    max_wait: Annotated[
        float, typer.Option(min=0, help="Seconds that a question waits for others to join it.")
    ] = 0.01,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Questions that may wait; what comes then is refused (429).")
    ] = 64,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is given up (504).")] = 60,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Serve requests that call this machine so; may be repeated (default: loopback names where it "
            "listens there, any elsewhere).",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let pages of this origin call the service; may be repeated."),
    ] = None,
    dtype: GeneratorDtype = "auto",
    device: Device = None,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.console import quiet_libraries, stderr, warn
    from ragweave.errors import require_extra

    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require_extra(package, "serve")
    from ragweave.serving.keys import KeyRing
    from ragweave.serving.running import run
    from ragweave.serving.settings import Batching, Limits, ServingSettings
    from ragweave.types import SearchSettings

    # Mistakes in the arguments are told at once, not after a model was loaded.
    own = Limits()
    settings = ServingSettings(
        n_docs=n_docs,
        num_beams=beams,
        max_new_tokens=max_new_tokens,
        limits=Limits(
            questions=min(own.questions, max_queue),
            n_docs=max(own.n_docs, n_docs or 1),
            num_beams=max(own.num_beams, beams),
            max_new_tokens=max(own.max_new_tokens, max_new_tokens),
        ),
        batching=Batching(max_batch=max_batch, max_wait=max_wait, max_queue=max_queue, deadline=deadline),
        keys=None if api_key_file is None else KeyRing.from_file(api_key_file),
        admin_keys=None if admin_key_file is None else KeyRing.from_file(admin_key_file),
        allowed_hosts=(*(LOOPBACK if host in LOOPBACK else ()), *(allowed_host or ())),
        cors_origins=tuple(cors_origin or ()),
    )
    if host not in LOOPBACK and api_key_file is None:
        warn("Everyone who reaches this address may ask: --api-key-file lets in only those who have a key.")
    quiet_libraries()
    from ragweave.pipeline.rag_pipeline import RagPipeline

    pipeline = RagPipeline.from_pretrained(
        model,
        knowledge_base=kb,
        formulation=formulation,
        search=SearchSettings(retrieval, fusion, dense_weight, candidates),
        reranker=rerank,
        dtype=dtype,
        device=device,
    )

    def ready(address: str) -> None:
        stderr().print(f"Serving on {address} (Ctrl-C ends it).", markup=False, soft_wrap=True)

    run(pipeline, settings, host=host, port=port, ready=ready)
