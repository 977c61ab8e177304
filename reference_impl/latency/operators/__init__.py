"""Cost models composed of operators that were fitted to public tables; the profiles that come with semiflow."""

from reference_impl.latency.operators.model import Composed

__all__ = ["Composed"]
