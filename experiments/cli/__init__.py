"""The command line ``semiflow``: entry point and the one handler that turns a user's mistake into one line.

Exit codes: 0 done, 1 a gate failed, 2 a user's mistake or a full disk, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.path.append("")  # the current folder, for module:Class; last, so that nothing there hides our packages
    # numpy's OpenBLAS would start threads that spin for 0.06 CPU seconds; nothing here multiplies matrices
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe such as `semiflow policies | head` left: nothing to tell it, also not at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. Errors that are not the user's keep their traceback."""
    import typer

    from experiments.cli.app import app

    try:
        code = app(args=list(arguments), prog_name="semiflow", standalone_mode=False)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written is left", INTERRUPTED)
    except typer.TyperException as error:
        return _fail(f"{error.format_message()} (semiflow --help shows what there is)")
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(_os_reason(error))
    except Exception as error:
        if not isinstance(error, _user_errors()):
            raise
        return _fail(str(error))
    if code == INTERRUPTED:
        return _fail("interrupted; nothing half-written is left", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _user_errors() -> tuple[type[Exception], ...]:
    """Imported only once something failed: they would cost start-up time."""
    from experiments.config import ConfigError
    from policies.api import PolicyError
    from policies.registry import ParameterError, UnknownPolicy
    from reference_impl.latency.errors import ProfileError
    from workloads.errors import TraceError

    return (ConfigError, PolicyError, ParameterError, UnknownPolicy, ProfileError, TraceError)


def _os_reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or " ".join(str(error).split())
    if error.errno == errno.ENOSPC:
        return f"{where}the disk is full ({reason}); nothing half-written is left"
    return f"{where}{reason}"


def _fail(message: str, code: int = 2) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C, so that partial folders are removed."""
    raise KeyboardInterrupt
