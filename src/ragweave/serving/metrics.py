"""What is counted and timed, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ragweave_requests_total",
            "Requests by endpoint and status.",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ragweave_request_seconds",
            "Seconds until a response was sent whole.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "ragweave_batch_questions",
            "Questions that were answered together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )

    def watch(
        self, *, waiting: Callable[[], float], passages: Callable[[], float], failures: Callable[[], float]
    ) -> None:
        """Show figures that are looked up when they are asked for.

        Args:
            waiting: Questions that wait.
            passages: Passages of the knowledge base.
            failures: Versions of the knowledge base that could not be taken up.
        """
        for name, text, look_up in (
            ("ragweave_waiting_questions", "Questions that wait.", waiting),
            ("ragweave_passages", "Passages of the knowledge base.", passages),
            ("ragweave_refresh_failures", "Versions that could not be taken up.", failures),
        ):
            Gauge(name, text, registry=self.registry).set_function(look_up)

    def text(self) -> bytes:
        """All figures in Prometheus' format."""
        return generate_latest(self.registry)


class MetricsMiddleware:
    """Counts and times the requests.

    Args:
        app: What serves them.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # The route's pattern, and not the path: of paths there is no end.
            endpoint = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.monotonic() - began)
