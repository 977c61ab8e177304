"""How long an iteration takes: hardware and model descriptions, cost models, contention, links."""

from reference_impl.latency.api import LatencyModel, Piece, Work
from reference_impl.latency.backends import BACKENDS
from reference_impl.latency.contention import ContentionModel
from reference_impl.latency.devices import HARDWARE, Hardware, hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.latency.hf_config import known_models, model
from reference_impl.latency.linear import DecodeFit, Linear, constant, distserve
from reference_impl.latency.links import LINKS, LinkKind, link
from reference_impl.latency.llmservingsim import read_profile
from reference_impl.latency.measured import Coefficients, Measured
from reference_impl.latency.memory import kv_pool_blocks
from reference_impl.latency.models import MODELS
from reference_impl.latency.operators import Composed
from reference_impl.latency.pipeline import Pipelined, stage_shares
from reference_impl.latency.profile import profile
from reference_impl.latency.profiled import Profiled
from reference_impl.latency.published import open_published
from reference_impl.latency.roofline import Roofline, roofline
from reference_impl.latency.shapes import ModelShape
from reference_impl.latency.table import Table

__all__ = [
    "BACKENDS",
    "HARDWARE",
    "LINKS",
    "MODELS",
    "Coefficients",
    "Composed",
    "ContentionModel",
    "DecodeFit",
    "Hardware",
    "LatencyModel",
    "Linear",
    "LinkKind",
    "Measured",
    "ModelEstimate",
    "ModelShape",
    "Piece",
    "Pipelined",
    "ProfileError",
    "Profiled",
    "Roofline",
    "Table",
    "Work",
    "constant",
    "distserve",
    "hardware",
    "known_models",
    "kv_pool_blocks",
    "link",
    "model",
    "open_published",
    "profile",
    "read_profile",
    "roofline",
    "stage_shares",
]
