"""The exceptions of ckptconv. Each says what happened, on which input, and what to type next.

::

    CkptconvError                 base of all; never raised itself
    ├── UsageError                exit 2: what was asked for makes no sense (unknown method, target exists, …)
    ├── VerdictError              exit 1: the question was clear and the answer is no
    │   ├── IncompletePlanError   a tensor is unexplained, missing or of the wrong shape
    │   ├── UnidentifiedError     no method, or more than one, explains the file
    │   └── ProofError            a file or a detector does not hold what it was to hold
    ├── UnreadableError           exit 3: the input is not a checkpoint, is broken, or is not safe to read
    ├── EnvironmentMissingError   exit 4: this machine lacks something (a package, disk space, a GPU)
    └── TrainingError             exit 4, or what its cause has: a training broke down, which says nothing about its AP
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import ClassVar

from ckptconv import arguments


def printable(text: str) -> str:
    """The text with what could steer a terminal or break a line written as an escape: names come from files."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The text with each of its lines printable."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def shell_word(text: str) -> str:
    """The text as one printable word of a shell's command line: `bash`, `zsh` and POSIX 2024 read $'…' with escapes."""
    if text.isprintable():
        return shlex.quote(text)
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a pair, which no command line can hold
        return shlex.quote(printable(text))
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return f"\\{letter}" if letter in "\\'" else letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))


_LONGEST = 900  # letters of a sentence that quotes a file


def shortened(text: str) -> str:
    """The text, or its beginning and its end."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


class CkptconvError(Exception):
    """Base class. ``message`` is one sentence about the input, ``hint`` what to do about it; both are printable.

    Both name parameters and calls as Python code between backticks, see `ckptconv.arguments`. ``parameter`` is the
    name of the one that was refused; '' if the input is at fault. ``exit_code`` is that of the command line.
    Whoever quotes a name in more than one line makes it `printable` there: here a line break in it is one of ours.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "", parameter: str = "") -> None:
        self.message = printable_lines(message)
        self.hint = printable_lines(hint)
        self.parameter = parameter
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def name_files(self, source: str, destination: str | None = None, rules: str | None = None) -> None:
        """Put the names that the caller gave into the calls of the hint, see `arguments.name_files`."""
        self.hint = arguments.name_files(self.hint, source, destination, rules)


class UsageError(CkptconvError):
    """What was asked for cannot be done with these arguments."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "", parameter: str = "") -> None:
        super().__init__(printable(message), hint, parameter)


class PluginWarning(UserWarning):
    """What another package offers as a method is none; ckptconv goes on without it."""


def unknown(what: str, name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> UsageError:
    """The error for a name that is not in a table, with the nearest names that are; an alias may be near, too."""
    from difflib import get_close_matches

    known = list(known)
    words = list(dict.fromkeys([*known, *aliases]))
    near = get_close_matches(name, words, 3) or [k for k in words if k.lower() == name.lower()]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."
    return UsageError(f"there is no {what} '{name}'", hint)


class VerdictError(CkptconvError):
    """The input was read and the answer is no."""


class IncompletePlanError(VerdictError):
    """Some tensor is unexplained, missing or of the wrong shape; nothing was written."""


class UnidentifiedError(VerdictError):
    """No known method explains the file, or several explain it differently."""


class ProofError(VerdictError):
    """A file or a detector does not hold what it was to hold: the file was removed, the training stopped."""


class UnreadableError(CkptconvError):
    """The input is not a checkpoint, is broken, or is not safe to read."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "", parameter: str = "") -> None:
        super().__init__(shortened(printable(message)), hint, parameter)


class EnvironmentMissingError(CkptconvError):
    """This machine lacks something the command needs."""

    exit_code = 4


class TrainingError(CkptconvError):
    """A training or a test broke down for a reason that says nothing about the AP."""

    exit_code = 4

    def __init__(self, message: str, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code or self.exit_code  # type: ignore[misc]  # that of its cause
