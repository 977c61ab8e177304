"""The command line ``semiflow``: entry point and the one handler that turns a user's mistake into one line.

Exit codes: 0 done, 1 a gate failed (nothing else), 2 a user's mistake or a full disk, 70 a defect of semiflow (with its
traceback), 130 interrupted, 141 the reader of a pipe left.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

DEFECT = 70
INTERRUPTED = 130
READER_LEFT = 141
_INTERRUPTED = "interrupted; no half-written result stands in its place"


class StoppedEarlyError(Exception):
    """Raised by a command that was interrupted and kept what it had: says what and where."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process."""
    try:
        code = _prepared(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        code = _fail(_INTERRUPTED, INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe such as `semiflow policies | head` left: nothing to tell it, also not at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = READER_LEFT
    except Exception:  # noqa: BLE001 - the last one before the interpreter, which would exit with the gate's 1
        traceback.print_exc()
        code = DEFECT
    sys.exit(code)


def _prepared(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    sys.path.append("")  # the current folder, for module:Class; last, so that nothing there hides our packages
    # numpy's OpenBLAS would start threads that spin for 0.06 CPU seconds; nothing here multiplies matrices
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ? for what it lacks
    code = run(arguments)
    sys.stdout.flush()
    return code


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. Errors that are not the user's keep their traceback."""
    try:
        from experiments.cli.app import command_line

        code = command_line(arguments)(args=list(arguments), prog_name="semiflow", standalone_mode=False)
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, INTERRUPTED)
    except SystemExit as error:  # only typer's, where the reader of stdout left
        raise BrokenPipeError from error
    except BrokenPipeError:
        raise
    except StoppedEarlyError as error:
        return _fail(str(error), INTERRUPTED)
    except Exception as error:
        message = _told(error)
        if message is None:
            raise
        return _fail(message) if message else 2
    if code == INTERRUPTED:
        return _fail(_INTERRUPTED, INTERRUPTED)
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> str | None:
    """What to say of a user's mistake; empty: the help is already on the screen. None: it is no user's mistake."""
    import typer

    if isinstance(error, typer.TyperException):
        message = error.format_message()
        return f"{message} (semiflow --help shows what there is)" if message else ""
    if isinstance(error, OSError):
        return _os_reason(error)
    if isinstance(error, MemoryError):
        return "the memory is full; take fewer requests or instances. Nothing half-written is left"
    return str(error) if isinstance(error, _user_errors()) else None


def _user_errors() -> tuple[type[Exception], ...]:
    """Imported only once something failed: they would cost start-up time."""
    from experiments.config_base import ConfigError
    from policies.api import PolicyError
    from policies.registry import ParameterError, UnknownPolicy
    from reference_impl.engine.api import EngineError
    from reference_impl.latency.errors import ProfileError
    from reference_impl.metrics.log import EventLogError
    from reference_impl.recording.replay import RecordingError
    from reference_impl.serve.http.settings import SettingsError
    from reference_impl.serve.ray_cluster import LaunchError
    from workloads.client.errors import ReplayError
    from workloads.errors import TraceError

    of_policies = (PolicyError, ParameterError, UnknownPolicy)
    live = (EngineError, LaunchError, SettingsError)
    return (ConfigError, EventLogError, ProfileError, RecordingError, ReplayError, TraceError, *live, *of_policies)


def _os_reason(error: OSError) -> str:
    from reference_impl.latency.errors import reason

    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}the disk is full ({reason(error)}); nothing half-written is left"
    return f"{where}{reason(error)}"


def _fail(message: str, code: int = 2) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C, so that partial folders are removed."""
    raise KeyboardInterrupt
