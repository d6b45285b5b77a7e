"""The command line. Each command is one call of the library; `render` prints."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import TextIO

from ckptconv.errors import CkptconvError, EnvironmentMissingError, PluginWarning, UsageError, shortened

_show = warnings.showwarning

BUG, INTERRUPTED, BROKEN_PIPE = 70, 130, 141
"""Exit codes besides those of `ckptconv.errors`: EX_SOFTWARE of sysexits.h, and those of a shell for the signals."""


def main() -> None:
    """Entry point of the command `ckptconv`. Exit codes: see `ckptconv.errors`."""
    gc.disable()  # a command makes many small objects and then ends: collecting them costs a tenth of its time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an unfinished file is removed
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a letter that the terminal's encoding lacks
    warnings.showwarning = _warn
    try:
        try:
            code = _run()
        except CkptconvError as error:
            code = _fail(error)
        except SystemExit as end:  # which typer and rich make of a broken pipe
            if end.code != 1 or not _is_broken():
                raise
            code = BROKEN_PIPE
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        _leave_output()
        code = BROKEN_PIPE
    except OSError as error:  # errors of inputs are CkptconvErrors: this is the output's
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        _leave_output()
        code = _fail(EnvironmentMissingError(f"the output cannot be written: {error.strerror}", "Free some space."))
    if code == INTERRUPTED:  # who pressed Ctrl-C does not wait until torch has shut down
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    """Run the command. Raises CkptconvError, KeyboardInterrupt, or OSError of the output."""
    try:
        from ckptconv.cli.app import app

        return app(standalone_mode=False) or 0
    except (CkptconvError, KeyboardInterrupt, BrokenPipeError):
        raise
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "ckptconv":
            return _bug(error)
        raise EnvironmentMissingError(
            f"this needs the package {package}, which is missing or broken", "See what is: ckptconv doctor"
        ) from None
    except MemoryError:
        raise EnvironmentMissingError("this needs more memory than there is", "Close other programs.") from None
    except Exception as error:
        if hasattr(error, "format_message"):  # of the library that parses the command line
            return _misused(error)
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from None
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        return _bug(error)


def _misused(error: Exception) -> int:
    """What is wrong with the words of the command line. They are echoed, and may be anything."""
    from ckptconv.cli.other_words import meant

    if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return 2
    message = " ".join(error.format_message().split("\n"))  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "ckptconv"
    command = command.replace("python -m ckptconv", "ckptconv")
    message = message[:1].lower() + message[1:].rstrip(".")
    return _fail(UsageError(shortened(message), meant(message) or f"See {command} --help."))


def _bug(error: Exception) -> int:
    """Say that something was not foreseen: its kind and place, but not its words, which may hold a secret."""
    if os.environ.get("CKPTCONV_DEBUG"):
        traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "ckptconv" in Path(frame.filename).parts]
    where = own[-1] if own else where
    found = CkptconvError(
        f"ckptconv did not foresee this: {type(error).__name__} in {Path(where.filename).name}, line {where.lineno}",
        "This is a bug. Please report it to the project's issue tracker, with the command and what it prints with "
        "CKPTCONV_DEBUG=1 before it.",
    )
    return _fail(found, BUG)


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


def _fail(error: CkptconvError, code: int | None = None) -> int:
    from ckptconv.cli import render

    code = error.exit_code if code is None else code
    render.error(error, code, as_json="--json" in sys.argv)
    return code


def _is_broken() -> bool:
    """Whether the output is a pipe that no process reads any more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        poll = select.poll()
        poll.register(1, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def _leave_output() -> None:
    """Point the output elsewhere, so that Python's own flush at the end finds nothing to complain about."""
    if sys.stdout is not None:
        with open(os.devnull, "w") as nothing:  # noqa: PTH123 (a name, not a path)
            os.dup2(nothing.fileno(), sys.stdout.fileno())
