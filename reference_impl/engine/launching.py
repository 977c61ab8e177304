"""Starting a host's launcher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from reference_impl.engine.api import EngineError

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_LONGEST_PATH = 100
"""Unix sockets have no longer ones."""


class Launcher:
    """The launcher process of this host; it ends with this object's process at the latest.

    Its socket can be asked at once: who comes before torch is imported waits.
    """

    def __init__(self, run_folder: Path) -> None:
        self.socket = run_folder / "launcher.sock"
        """What :class:`ProcessCrews` are given."""
        if len(os.fsencode(self.socket)) > _LONGEST_PATH:
            raise EngineError(f"the path {self.socket} is too long for a socket; choose a shorter run folder")
        run_folder.mkdir(parents=True, exist_ok=True)
        listener = _listen(self.socket)
        owner, hold = os.pipe()
        self._hold: int | None = hold
        command = [sys.executable, "-m", "reference_impl.engine.launcher"]
        command += ["--listen", str(listener.fileno()), "--owner", str(owner)]
        try:
            with (run_folder / "launcher.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(),
                    pass_fds=(listener.fileno(), owner),
                    start_new_session=True,  # an interrupt at the terminal is for the owner to answer
                )
        finally:
            listener.close()
            os.close(owner)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether it can still fork workers."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; its workers live on as long as their instances."""
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    return listener


def _environment() -> dict[str, str]:
    """Where our packages are found, whatever the current folder; and no threads in numeric libraries."""
    ours = str(Path(__file__).parents[2])
    paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
