"""Starts a run's processes, follows their events, and stops all of them with it.

A folder belongs to one call at a time: a lock on it is held by the call and by what it started, so that processes
which outlived a killed call are noticed, not joined.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from ckptconv.errors import CkptconvError, EnvironmentMissingError, UsageError
from ckptconv.mmdetection.verify.events import Event, Follower
from ckptconv.mmdetection.verify.plan import Run
from ckptconv.mmdetection.verify.worker import EVENTS, FAILURE, RESULT

OUTPUT = "output.log"
_PAUSE = 0.2  # seconds between two looks at the events
_PATIENCE = 15  # seconds that processes have to end when asked
Watch = Callable[[Run, Event], None]


class TrainingFailed(CkptconvError):
    """The run's processes ended with an error that says nothing about the AP."""


class Stopped(Exception):
    """The run ended with a reason that is an answer: no proof, or a loss that is no number."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Holds the folder's lock; yields its file descriptor. Raises UsageError if another call works there."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            group = os.pread(descriptor, 20, 0).decode().strip()
            stop = f", or stop it: kill -- -{group}" if group.isdigit() else ""
            raise UsageError(
                f"another run is at work in {folder}", f"Wait for it{stop}; or give another --work-dir."
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


def conduct(run: Run, command: list[str], cuda: bool, lock: int, watch: Watch) -> None:
    """Run it to its end, or find that it is there.

    Raises Stopped for a reason that is an answer, EnvironmentMissingError for processes that were killed or ran out of
    memory, TrainingFailed for other errors. Interrupted or terminated, it stops the processes first.
    """
    if (run.folder / RESULT).exists():
        return
    (run.folder / FAILURE).unlink(missing_ok=True)
    follower = Follower(run.folder / EVENTS, from_the_end=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **({} if cuda else {"CUDA_VISIBLE_DEVICES": ""})}
    environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // run.local, 1)))
    with (run.folder / OUTPUT).open("ab") as output, _terminable():
        start = output.tell()
        process = subprocess.Popen(
            [os.path.expandvars(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=[lock],
        )
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(process.pid).encode(), 0)
        try:
            while process.poll() is None:
                for event in follower.new():
                    watch(run, event)
                time.sleep(_PAUSE)
        finally:
            _stop(process)
    for event in follower.new():
        watch(run, event)
    if process.returncode or not (run.folder / RESULT).exists():
        _explain(run, process.returncode, start)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as a batch system sends it, ends the call as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group that it leads: asked first, then killed. Nothing happens if it has ended."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)


def _explain(run: Run, status: int, start: int) -> NoReturn:
    log = run.folder / OUTPUT
    if (run.folder / FAILURE).exists():
        said = json.loads((run.folder / FAILURE).read_text(encoding="utf-8"))
        kind, message = said["kind"], said["message"]
        if kind in ("proof", "diverged"):
            raise Stopped(kind, message, said["hint"])
        if kind == "memory":
            raise EnvironmentMissingError(
                f"{run.name} ran out of memory: {message}",
                "More GPUs take fewer images each: --gpus N. --amp needs half of it, and is another recipe.",
            )
        raise TrainingFailed(f"{run.name} failed: {message}", said["hint"] or f"Its whole output: {log}")
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    last = f": {lines[-1]}" if lines else ""
    killed = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}{last}"
    raise EnvironmentMissingError(
        f"{run.name} {killed}", f"The same command goes on from its last checkpoint. Its whole output: {log}"
    )
