"""Test your own policy: contract suites to subclass, and fake views to try it on.

In your tests::

    from policies.testing import DispatchContract

    class TestMyRouter(DispatchContract):
        spec = "my_package.router:MyRouter"

``pytest`` then checks, over many generated views, that the decisions are valid and repeatable, that the policy
survives ``pickle`` in mid-run, changes no view, reads no clock, and uses no global randomness; for a batch policy also
that nothing hangs and that ``holds`` is true.
"""

from policies.contracts.base import PolicyContract
from policies.contracts.batch import BatchContract
from policies.contracts.dispatch import DispatchContract
from policies.contracts.fakes import FakeCluster, FakeEstimate, fake_instance, fake_request
from policies.contracts.lane import FakeLane, FakeSequence, fake_sequence
from policies.contracts.partition import PartitionContract
from policies.contracts.prediction import PredictorContract
from policies.contracts.scaling import ScalingContract

__all__ = [
    "BatchContract",
    "DispatchContract",
    "FakeCluster",
    "FakeEstimate",
    "FakeLane",
    "FakeSequence",
    "PartitionContract",
    "PolicyContract",
    "PredictorContract",
    "ScalingContract",
    "fake_instance",
    "fake_request",
    "fake_sequence",
]
