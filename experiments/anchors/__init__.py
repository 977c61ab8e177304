"""Published results that our simulator must reproduce from what their authors published; one module per anchor."""

from experiments.anchors.anchor import Anchor
from experiments.anchors.distserve import DISTSERVE
from experiments.anchors.splitwise import SPLITWISE

ANCHORS: dict[str, Anchor] = {"distserve": DISTSERVE, "splitwise": SPLITWISE}
