"""How long an iteration takes: hardware and model descriptions, cost models, contention, links.

Cost models that are read from a profile are imported from their own modules, where a profile is opened: most runs have
none.
"""

from reference_impl.latency.api import LatencyModel, Piece, Work
from reference_impl.latency.backends import BACKENDS
from reference_impl.latency.contention import ContentionModel
from reference_impl.latency.devices import HARDWARE, Hardware, hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.latency.hf_config import known_models, model
from reference_impl.latency.linear import DecodeFit, Linear, constant, distserve
from reference_impl.latency.links import LINKS, LinkKind, link
from reference_impl.latency.memory import kv_pool_blocks
from reference_impl.latency.models import MODELS
from reference_impl.latency.pipeline import Pipelined, stage_shares
from reference_impl.latency.roofline import Roofline, roofline
from reference_impl.latency.shapes import ModelShape

__all__ = [
    "BACKENDS",
    "HARDWARE",
    "LINKS",
    "MODELS",
    "ContentionModel",
    "DecodeFit",
    "Hardware",
    "LatencyModel",
    "Linear",
    "LinkKind",
    "ModelEstimate",
    "ModelShape",
    "Piece",
    "Pipelined",
    "ProfileError",
    "Roofline",
    "Work",
    "constant",
    "distserve",
    "hardware",
    "known_models",
    "kv_pool_blocks",
    "link",
    "model",
    "roofline",
    "stage_shares",
]
