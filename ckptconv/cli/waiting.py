"""What a command shows while it works, and how a signal ends it: at once, even while a library runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptconv.cli import render
from ckptconv.errors import printable

if TYPE_CHECKING:
    from rich.status import Status

    from ckptconv.sources.interface import Fetching

_PATIENCE = 0.5  # seconds from a signal to the end


class Stage:
    """A line that says what is being done. Called with another text, it shows that one."""

    def __init__(self, shown: Status | None = None) -> None:
        self._shown = shown

    def __call__(self, text: str) -> None:
        if self._shown is not None:
            self._shown.update(printable(text).replace("[", r"\["))
            self._shown.start()

    def stop(self) -> None:
        """Take the line away, until another text comes."""
        if self._shown is not None:
            self._shown.stop()

    def making_room(self, fetching: Fetching) -> Fetching:
        """The same fetching, whose bar replaces the line."""
        show = fetching.progress
        if self._shown is None or show is None:
            return fetching

        def progress(done: int, total: int) -> None:
            self.stop()
            show(done, total)

        return replace(fetching, progress=progress)


@contextlib.contextmanager
def stage(text: str, as_json: bool = False) -> Iterator[Stage]:
    """A line on stderr while the block runs, if that is a terminal and people read: without ``as_json``."""
    if as_json or not render.is_terminal(sys.stderr):
        with ending():
            yield Stage()
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False, emoji=False)
    shown = console.status("")
    line = Stage(shown)
    with ending(lambda: console.show_cursor(True)):
        try:
            line(text)
            yield line
        finally:
            line.stop()


@contextlib.contextmanager
def ending(last: Callable[[], object] = lambda: None) -> Iterator[None]:
    """SIGINT and SIGTERM end the block within a second.

    Python raises KeyboardInterrupt between two of its own steps, and a library that is being imported may catch it. So
    a thread, which the signal wakes by itself (`signal.set_wakeup_fd`), ends the process where the block goes on for
    ``_PATIENCE`` seconds, after it has called ``last``. For blocks that leave nothing half-done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ended = threading.Event()

    def listen() -> None:
        while received := os.read(reader, 1):
            if received[0] in (signal.SIGINT, signal.SIGTERM) and not ended.wait(_PATIENCE):
                with contextlib.suppress(Exception):
                    last()
                os._exit(128 + received[0])
        os.close(reader)

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
