"""The command line. Each command is one call of the library; what is printed stands in `render`."""

from __future__ import annotations

import gc
import signal
import sys

from ckptconv.errors import CkptconvError


def main() -> None:
    """Entry point of the command `ckptconv`. Exit codes: see `ckptconv.errors`."""
    gc.disable()  # a command makes many small objects and then ends: collecting them costs a tenth of its time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an unfinished file is removed
    from ckptconv.cli import app, render

    try:
        app.app()
    except CkptconvError as error:
        render.error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except MemoryError:
        render.error(CkptconvError("this needs more memory than there is", "Close other programs."), as_json=False)
        sys.exit(4)
