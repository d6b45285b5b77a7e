"""Starts a run's processes, follows their events, and stops all of them with it.

A work dir belongs to one call at a time: the call and its processes hold a lock on it. A run's folder belongs to one
set of processes, which hold another lock: processes that outlived a killed call are noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from ckptconv.errors import EnvironmentMissingError, TrainingError, UsageError
from ckptconv.mmdetection.verify.run.events import Event, Follower
from ckptconv.mmdetection.verify.run.files import EVENTS, FAILURE, LOCK, RESULT, Failure, Run
from ckptconv.mmdetection.verify.run.launch import RENDEZVOUS

OUTPUT = "output.log"
_PAUSE = 0.2  # seconds between two looks at the events
_SLURM_TIMEOUT = 15  # seconds that srun has to end its job after a SIGTERM
_TIMEOUT = 0.5  # the same for processes that can all be killed from here
Watch = Callable[[Run, Event], None]


class Stopped(Exception):
    """The run ended with a reason that is a verdict: the start is not proved, or the loss is NaN or infinite."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds the folder's lock; yields its file descriptor. Raises UsageError if another call holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            group = os.pread(descriptor, 20, 0).decode().strip()
            stop = f", or stop it: kill -- -{group}" if group.isdigit() else ""
            raise UsageError(
                f"another verify-ap is running in {folder}", f"Wait for it{stop}; or give another `work_dir`."
            ) from None
        os.ftruncate(descriptor, 0)
        yield descriptor
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _require_idle(folder: Path) -> None:
    """Raises UsageError if processes of an earlier call still run."""
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"processes of an earlier verify-ap are still running in {folder}",
                f"Wait for them, or stop them: kill {file.read().strip()}",
            ) from None
        file.truncate(0)


def process_environment(processes: int) -> dict[str, str]:
    """The environment variables of a run with this many processes on this machine, which share its cores."""
    threads = str(max((os.cpu_count() or 1) // processes, 1))
    return {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONUNBUFFERED": "1"}


def supervise(run: Run, command: list[str], lock: int, watch: Watch) -> None:
    """Run the processes to their end; return at once if the run has its result.

    Raises Stopped for a reason that is a verdict, TrainingError for any other error, EnvironmentMissingError for
    processes that were killed or ran out of memory. Ctrl-C and SIGTERM stop the processes first.
    """
    if (run.folder / RESULT).exists():
        return
    _require_idle(run.folder)
    (run.folder / FAILURE).unlink(missing_ok=True)
    follower = Follower(run.folder / EVENTS, from_the_end=True)
    with (run.folder / OUTPUT).open("ab") as output, _terminable():
        start = output.tell()
        try:
            process = subprocess.Popen(
                [os.path.expandvars(word) if word.startswith(RENDEZVOUS) else word for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=process_environment(run.processes),
                start_new_session=True,
                pass_fds=[lock],
            )
        except FileNotFoundError:
            raise EnvironmentMissingError(
                f"{command[0]} is not installed", "Run the command where it is installed."
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(process.pid).encode(), 0)
        try:
            while process.poll() is None:
                for event in follower.new():
                    watch(run, event)
                time.sleep(_PAUSE)
        finally:
            _stop(process, _SLURM_TIMEOUT if run.job.launcher == "slurm" else _TIMEOUT)
            os.ftruncate(lock, 0)
    for event in follower.new():
        watch(run, event)
    if not (run.folder / RESULT).exists():  # written last, and atomically: what happens after it does not matter
        _explain(run, process.returncode, start)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which batch systems send, ends the call as Ctrl-C does."""
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


def _stop(process: subprocess.Popen[bytes], timeout: float) -> None:
    """End the process's whole group, and what torchrun has started in other sessions.

    First SIGTERM, then SIGKILL; a second Ctrl-C kills at once.
    """
    below = tuple(_below(process.pid))
    try:
        _send(process, signal.SIGTERM, below, timeout)
    finally:
        _send(process, signal.SIGKILL, below, timeout)


def _below(pid: int) -> Iterator[int]:
    """All descendants of a process, where Linux lists them: `proc_pid_children(5)`."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _below(child)


def _send(process: subprocess.Popen[bytes], sent: int, below: tuple[int, ...], timeout: float) -> None:
    """Send a signal to the group and to the descendants, and wait for the leader. Ended processes are ignored."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, sent)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout)


def _explain(run: Run, status: int, start: int) -> NoReturn:
    log = run.folder / OUTPUT
    if failure := Failure.load(run.folder):
        if failure.kind in ("proof", "diverged"):
            raise Stopped(failure.message)
        if failure.kind == "memory":
            raise EnvironmentMissingError(
                f"{run.name} ran out of memory: {failure.message}",
                "Use more GPUs, with fewer images each: `gpus`. `amp` halves the memory, but changes the recipe.",
            )
        raise TrainingError(
            f"{run.name} failed: {failure.message}", failure.hint or f"See its output: {log}", failure.exit_code
        )
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    lines = [line for line in lines if any(map(str.isalnum, line))]
    last = f": {lines[-1]}" if lines else ""
    killed = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}{last}"
    raise EnvironmentMissingError(
        f"{run.name} {killed}", f"The same command resumes from the last checkpoint. See its output: {log}"
    )
