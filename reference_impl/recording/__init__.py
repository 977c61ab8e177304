"""What a policy was shown and what it decided, written down as it happens and decided again from the same views."""

from reference_impl.recording.recorder import Recorder
from reference_impl.recording.replay import Replayed, replay

__all__ = ["Recorder", "Replayed", "replay"]
