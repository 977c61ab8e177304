"""Run a script of ours in somebody else's interpreter: a task in, lines out as they come."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.config_base import ConfigError

MARK = "semiflow "
"""Begins the lines that are for us: libraries write to stdout too."""
_REMEDY = "give --python an interpreter that has vLLM"
_ERROR = re.compile(r"(?:^|\]: )((?:\w+\.)*\w*(?:Error|Exception)\b.*)")


def converse(python: str, script: Path, task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the script says, line by line. It ends with this iterator, whatever ends that.

    Raises ConfigError with the script's own last error where it fails.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = _start(python, script, errors)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdin as to_script:
                to_script.write(json.dumps(task))
            for line in process.stdout:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
            code = process.wait()
        except BrokenPipeError:
            code = process.wait()
        finally:
            _end(process)
        if code:
            errors.seek(0)
            raise ConfigError(f"{python} cannot run vLLM: {_told(errors.read())}; {_REMEDY}")


def _start(python: str, script: Path, errors: Any) -> subprocess.Popen[str]:
    """In a session of its own, so that Ctrl-C is ours to handle."""
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            [python, str(script)], stdin=pipe, stdout=pipe, stderr=errors, text=True, start_new_session=True
        )
    except OSError as error:
        raise ConfigError(f"cannot run {python}: {error.strerror}; {_REMEDY}") from error


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _told(text: str) -> str:
    """The last error of a traceback; else the last line."""
    lines = text.strip().splitlines() or ["no message"]
    found = [match.group(1) for line in lines if (match := _ERROR.search(line))]
    return found[-1] if found else lines[-1]
