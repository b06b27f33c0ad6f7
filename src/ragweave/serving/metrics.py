"""Prometheus metrics of the service, and the middleware that records requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragweave.modeling.passage_cache import PassageCache

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one service, in a separate registry. The functions return current values of gauges."""

    def __init__(
        self,
        *,
        waiting: Callable[[], float],
        passages: Callable[[], float],
        refresh_failures: Callable[[], float],
        passage_cache: PassageCache | None,
    ) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "ragweave_requests_total", "Completed requests.", ["endpoint", "status"], registry=registry
        )
        self.seconds = Histogram(
            "ragweave_request_seconds", "Response times.", ["endpoint"], buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "ragweave_batch_questions", "Batch sizes.", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        for name, description, value in (
            ("ragweave_waiting_questions", "Questions in the queue.", waiting),
            ("ragweave_passages", "Passages in the knowledge base.", passages),
            ("ragweave_refresh_failures", "Versions that could not be loaded.", refresh_failures),
        ):
            Gauge(name, description, registry=registry).set_function(value)
        if passage_cache is None:
            return
        for name, description, attribute in (
            ("ragweave_passage_cache_hits", "Passages found in the cache.", "hits"),
            ("ragweave_passage_cache_misses", "Passages not found in the cache.", "misses"),
            ("ragweave_passage_cache_bytes", "Memory of the cached keys and values.", "bytes"),
        ):
            gauge = Gauge(name, description, registry=registry)
            gauge.set_function(partial(getattr, passage_cache, attribute))


class MetricsMiddleware:
    """Counts and times requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def watching_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching_send)
        finally:
            # The route's pattern, not the path: the number of label values must stay bounded.
            endpoint = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.monotonic() - started)
