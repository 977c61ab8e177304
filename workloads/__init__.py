"""Traffic: recorded and synthetic workloads as one columnar type. Imports none of our other packages."""

from __future__ import annotations

from workloads.errors import TraceError
from workloads.trace import Trace

__all__ = ["Trace", "TraceError"]
