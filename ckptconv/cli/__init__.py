"""The command line. Each command is one call of the library; what is printed stands in `render`."""

from __future__ import annotations

import gc
import signal
import sys
import warnings
from typing import TextIO

from ckptconv.errors import CkptconvError, EnvironmentMissingError, PluginWarning

_show = warnings.showwarning


def main() -> None:
    """Entry point of the command `ckptconv`. Exit codes: see `ckptconv.errors`."""
    gc.disable()  # a command makes many small objects and then ends: collecting them costs a tenth of its time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an unfinished file is removed
    from ckptconv.cli.app import app

    warnings.showwarning = _warn
    try:
        app()
    except CkptconvError as error:
        _fail(error)
    except MemoryError:
        _fail(EnvironmentMissingError("this needs more memory than there is", "Close other programs."))


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of this program as its errors are printed, and leave others as they are."""
    from ckptconv.cli import render

    if issubclass(category, PluginWarning):
        text, _, hint = str(message).partition("\n")
        render.note(f"warning: {text}")
        render.note(f"hint: {hint}")
    else:
        _show(message, category, filename, lineno, file, line)


def _fail(error: CkptconvError) -> None:
    from ckptconv.cli import render

    render.error(error, as_json="--json" in sys.argv)
    sys.exit(error.exit_code)
