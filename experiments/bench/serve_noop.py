"""What a token costs on Ray Serve alone: an app that streams tokens which are always the same.

``python -m experiments.bench.serve_noop proxy|direct`` prints one JSON object once it is ready. Ray and Serve run with
the settings of the deployment; the app is one replica, behind Serve's own HTTP proxy or with a port of its own, which
is what Serve calls direct ingress. A request says how many tokens it wants, how many bytes each takes, and how long it
takes: all streams get theirs at the same moment, as they do from an engine's iteration, at the multiples of
``period_s`` on the host's monotonic clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from experiments.bench.serve_child import hold
from experiments.bench.serve_host import free_port

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import StreamingResponse


class Noop:
    """The replica."""

    async def __call__(self, request: Request) -> StreamingResponse:
        """Stream."""
        from starlette.responses import StreamingResponse

        wanted = await request.json()
        tokens = _tokens(wanted["max_tokens"], wanted["event_bytes"], wanted["period_s"])
        return StreamingResponse(tokens, media_type="text/event-stream")


async def _tokens(count: int, event_bytes: int, period_s: float) -> AsyncIterator[str]:
    event = f"data: {'x' * (event_bytes - 8)}\n\n"
    tick = math.floor(time.monotonic() / period_s)
    for _ in range(count):
        tick = max(tick + 1, math.floor(time.monotonic() / period_s))
        while (early_s := tick * period_s - time.monotonic()) > 0:  # a loop's timers can be early
            await asyncio.sleep(early_s)
        yield event
    yield "data: [DONE]\n\n"


def main(how: str) -> None:
    """Serve until the input ends."""
    from ray import serve

    from reference_impl.serve.ray_cluster import ray_cluster
    from reference_impl.serve.spec import Timing

    port = free_port()
    with ray_cluster(False, _direct(port) if how == "direct" else None):
        health_s = Timing().health_s
        options = {
            "max_ongoing_requests": 1000,
            "health_check_period_s": health_s,
            "ray_actor_options": {"num_cpus": 0},
        }
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(http_options={"host": "127.0.0.1", "port": free_port() if how == "direct" else port})
        serve.run(serve.deployment(name="noop", **options)(Noop).bind(), name="noop", route_prefix="/")
        try:
            hold({"port": port})
        finally:
            serve.shutdown()


def _direct(port: int) -> dict[str, str]:
    """Serve's settings for a replica that listens at ``port``."""
    return {
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


if __name__ == "__main__":
    main(sys.argv[1])
