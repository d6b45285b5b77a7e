"""The inert unpickler: reads what a pickle would do, and does none of it.

A pickle is a program for a small machine. This module runs that program, within a budget of steps. Its machine knows
globals as names and calls as records: see `pickle_machine` and `opcodes`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ckptconv.errors import UnreadableError
from ckptconv.formats.buffered import BufferedReader
from ckptconv.formats.opcodes import STEPS, STOP
from ckptconv.formats.pickle_machine import PickleMachine
from ckptconv.formats.records import Handler, Malformed
from ckptconv.sources.file import Source

_MAX_STEPS = 1_000_000


class Unpickler:
    """Reads pickles one after another from ``source`` between two offsets.

    `PickleMachine` says what ``handlers`` and ``persistent`` are. ``max_steps`` is one budget for all the pickles.
    """

    def __init__(
        self,
        source: Source,
        start: int,
        end: int,
        handlers: Mapping[tuple[str, str], Handler],
        persistent: Handler | None = None,
        max_steps: int = _MAX_STEPS,
    ) -> None:
        self._source, self._stream = source, BufferedReader(source, start, end)
        self._machine = PickleMachine(self._stream, handlers, persistent)
        self._max_steps = self._steps = max_steps

    @property
    def named(self) -> Mapping[str, None]:
        """The globals that the pickles name, in order."""
        return self._machine.named

    @property
    def called(self) -> Mapping[str, None]:
        """The globals that they would have called, and that no handler knows."""
        return self._machine.called

    def tell(self) -> int:
        """Where the next pickle starts."""
        return self._stream.tell()

    def load(self) -> Any:
        """The next pickle's object. Raises UnreadableError for a malformed one."""
        self._machine.begin()
        try:
            return self._run()
        except Malformed as error:
            reason = str(error)
        except (
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            struct.error,
            ArithmeticError,
            RecursionError,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
        raise UnreadableError(
            f"{self._source.path}: its pickle is malformed near byte {self._stream.tell():,} ({reason})",
            "The file is damaged, or it is not a checkpoint. Download it again from its source.",
        )

    def _run(self) -> Any:
        stream, machine = self._stream, self._machine
        for done in range(1, self._steps + 1):
            at = stream.at
            if at == len(stream.buffer):
                stream.refill(1)
                at = 0
            code = stream.buffer[at]
            stream.at = at + 1
            if code == STOP:
                self._steps -= done  # one budget for all pickles of a file
                return machine.stack.pop()
            step = STEPS[code]
            if step is None:
                raise Malformed(f"there is no opcode {bytes([code])!r}")
            step(machine, stream)
        raise Malformed(f"it has more than {self._max_steps:,} steps")
