"""Python processes that start in milliseconds: copies of one that has imported what takes long already.

For tests of what a command does, not of how it starts: `run` and `Popen` stand for those of `subprocess`. A copy has
the arguments, the folder, the environment, the streams and the exit status of a process of its own, other random
numbers than its sisters, and its own ``__main__``; only what is imported is there already. The encoding of the streams
is that of these tests, whatever the environment says; and mmengine prints its configs without yapf, and has read the
hundred YAML files that tell it where MMDetection's are.

The server is this file, run by itself. It ends with the process of tests that has started it.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import gc
import importlib
import importlib.util
import io
import json
import os
import random
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
WHERE = "CKPTCONV_TESTS_FORK_SERVER"
"""The server's socket, in the environment: a copy that starts processes in turn finds it there."""
_TORCHRUN = "torch.distributed.elastic.multiprocessing"
_INHERITED = 64
"""File descriptors that a process may be given, at most."""


# The tests' side ---------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """The interpreter ``python`` with these modules imported; started when it is first asked for a copy."""

    imported: Sequence[str]
    python: str = sys.executable
    shared: bool = False
    """Whether copies that start processes in turn ask the same server."""
    address: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Its socket; it is started if it has not been."""
        if self.shared and WHERE in os.environ:
            return os.environ[WHERE]
        if not self.address:
            address = str(Path(tempfile.mkdtemp(prefix="ckptconv-fork-"), "socket"))
            clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
            # A driver that is asked in the server cannot be used in its copies; in this way torch does not ask it.
            settings = {**clean, "OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
            command = [self.python, "-W", "ignore", __file__, address, *self.imported]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=settings)
            atexit.register(self.stop)
            assert self.process.stdout is not None
            assert self.process.stdout.readline() == b"ready\n", "the fork server does not start"
            self.address = address
            if self.shared:
                os.environ[WHERE] = address
        return self.address

    def stop(self) -> None:
        """End it: nobody holds its standard input open any more."""
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()
            self.process.wait()
            self.process, self.address = None, ""


MMDETECTION = Server(
    (
        *("torch", "torch.utils.data", "scipy.optimize", "pycocotools.cocoeval", "mmengine.runner", "mmcv.ops"),
        *(f"mmdet.{part}" for part in ("models", "datasets", "engine", "evaluation", "visualization")),
        "torch._inductor.config",  # what torch.use_deterministic_algorithms imports
        *("typer", "rich.console", "rich.table", "rich.progress", "requests", "safetensors.torch", "platformdirs"),
    ),
    shared=True,
)
COMMANDS = Server(
    (
        *(f"ckptconv.{name}" for name in ("cli.app", "cli.render", "inspection", "conversion.convert", "methods")),
        *("rich.console", "rich.table", "numpy", "requests"),
    )
)
"""The command line itself is imported there, too: the quickest, where neither torch nor MMDetection is asked for."""


class Popen:
    """A process of this interpreter, as `subprocess.Popen` has it: ``args`` are ``[sys.executable, …]``.

    ``stdin`` is a file, or nothing; ``stdout`` and ``stderr`` are files, or those of this process.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        start_new_session: bool = False,
        pass_fds: Sequence[int] = (),
        server: Server = MMDETECTION,
    ) -> None:
        assert args[0] == server.python, args
        address = server.start()
        request = {
            "words": [str(word) for word in args[1:]],
            "cwd": str(cwd or Path.cwd()),
            "env": {**(os.environ if env is None else env), **({WHERE: address} if server.shared else {})},
            "session": start_new_session,
            "passed": list(pass_fds),
        }
        self.args = list(args)
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        with contextlib.ExitStack() as closing:
            streams = [_descriptor(closing, stdin, 0), _descriptor(closing, stdout, 1)]
            streams.append(streams[1] if stderr == subprocess.STDOUT else _descriptor(closing, stderr, 2))
            content = json.dumps(request).encode()
            socket.send_fds(self._connection, [struct.pack("<Q", len(content))], [*streams, *pass_fds])
            self._connection.sendall(content)
        (self.pid,) = struct.unpack("<q", _all_of(self._connection, 8))

    def poll(self) -> int | None:
        if self.returncode is None:
            self._connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self._end()
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        (status,) = struct.unpack("<q", _all_of(self._connection, 8))
        self.returncode = os.waitstatus_to_exitcode(status)
        self._connection.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _descriptor(closing: contextlib.ExitStack, stream: int | IO[Any] | None, usual: int) -> int:
    if stream == subprocess.DEVNULL:
        stream = os.open(os.devnull, os.O_RDWR)
        closing.callback(os.close, stream)
    return usual if stream is None else stream if isinstance(stream, int) else stream.fileno()


def _all_of(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        assert part, "the fork server is gone"
        content += part
    return content


def run(
    args: Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    together: bool = False,
    timeout: float = 300,
    errors: str = "strict",
    server: Server = MMDETECTION,
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with text that is captured, and nothing to read; ``together``: stderr goes where stdout goes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stderr = subprocess.STDOUT if together else err
        process = Popen(args, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=stderr, server=server)
        try:
            process.wait(timeout)
        except BaseException:
            process.kill()
            raise
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors=errors))
    return subprocess.CompletedProcess(args, process.wait(), *said)


def as_subprocess() -> types.SimpleNamespace:
    """The module `subprocess`, but for its Popen: for a module of the package whose processes are to be copies."""
    return types.SimpleNamespace(**{**vars(subprocess), "Popen": Popen})


# The server --------------------------------------------------------------------------------------------------------


def parse_only(text: str, **_: Any) -> tuple[str, bool]:
    """In place of yapf's FormatCode, which takes half a second per config: the same text, if it is Python."""
    ast.parse(text)
    return text, False


def read_once(utils: Any) -> None:
    """Keep what mmengine reads to find any ``mmdet::`` base; ``utils`` is the module mmengine.config.utils."""
    kept = functools.cache(utils.load)
    utils.load = lambda path: kept(os.path.realpath(path))
    mmdet = importlib.util.find_spec("mmdet")
    for folder in (mmdet.submodule_search_locations or ()) if mmdet else ():
        with contextlib.suppress(ValueError):  # there is no such config
            utils._get_cfg_metainfo(folder, "")


def _serve(address: str, *imported: str) -> dict[str, Any]:
    """Make a copy for each request, and say how it ended. Returns in the copies only, with the request."""
    path = sys.path[1:]
    sys.path[0] = str(ROOT)
    for name in imported:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "mmengine.config.config" in sys.modules:
        sys.modules["mmengine.config.config"].FormatCode = parse_only  # type: ignore[attr-defined]
        read_once(sys.modules["mmengine.config.utils"])
    gc.collect()
    gc.freeze()  # so that no copy touches, and thus copies, what they share
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(16)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                request = _answer(listening, selector)
                if request is not None:
                    return {**request, "path": path}
            elif key.fd == 0:  # the tests are over
                shutil.rmtree(Path(address).parent)
                os._exit(0)
            else:
                _say_the_end(key, selector)


def _answer(listening: socket.socket, selector: selectors.BaseSelector) -> dict[str, Any] | None:
    """Start what is asked for. Returns the request in the copy, and None in the server."""
    connection, _ = listening.accept()
    head, descriptors, _, _ = socket.recv_fds(connection, 8, _INHERITED)
    try:
        (size,) = struct.unpack("<Q", head)
        request: dict[str, Any] = json.loads(_all_of(connection, size))
    except (struct.error, AssertionError, OSError):  # whoever asked was stopped while it did
        for descriptor in descriptors:
            os.close(descriptor)
        connection.close()
        return None
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):  # whoever asked was stopped meanwhile
            connection.sendall(struct.pack("<q", pid))
        selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
        return None
    if request["session"]:
        os.setsid()
    high = 1000 - len(descriptors)  # out of the way of the numbers that are wanted
    for i, descriptor in enumerate(descriptors):
        os.dup2(descriptor, high + i)
    for one in (listening, connection, *(key.data[1] for key in selector.get_map().values() if key.data)):
        one.close()  # here, and not when they are collected: their numbers may then be another file's
    selector.close()
    os.closerange(3, high)
    for i, number in enumerate((0, 1, 2, *request["passed"])):
        os.dup2(high + i, number)
    os.closerange(high, 1000)
    return request


def _say_the_end(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    pid, connection = key.data
    _, status = os.waitpid(pid, 0)
    selector.unregister(key.fd)
    os.close(key.fd)
    with contextlib.suppress(OSError):  # nobody waits for it
        connection.sendall(struct.pack("<q", status))
    connection.close()


def _become(request: Mapping[str, Any]) -> None:
    """In a copy: be a process that was started with this request, and run its program."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    options, words = [], list(request["words"])
    at_once = bool(request["env"].get("PYTHONUNBUFFERED"))
    while words[0] in ("-W", "-u"):
        if words.pop(0) == "-W":
            options.append(words.pop(0))
        else:
            at_once = True
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        usual = getattr(sys, name)
        raw = io.FileIO(number, "w" if number else "r", closefd=False)
        buffered = io.BufferedReader(raw) if not number else raw if at_once else io.BufferedWriter(raw)
        stream = io.TextIOWrapper(
            buffered,  # without a buffer as Python itself does it
            encoding=usual.encoding,
            errors=usual.errors,
            line_buffering=number == 2 and not at_once,
            write_through=at_once,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    random.seed()
    for name in ("numpy.random", "torch"):
        if name in sys.modules:
            sys.modules[name].seed()
    _warn_as_usual([*filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")), *options])
    program, *more = words
    ours = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*ours, *request["path"]]
    if any(Path(folder, "sitecustomize.py").exists() for folder in ours):  # as at the start of an interpreter
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    if words[:2] == ["-m", "torch.distributed.run"]:  # what it starts are copies, too
        of_torchrun: Any = importlib.import_module(f"{_TORCHRUN}.subprocess_handler.subprocess_handler")
        of_torchrun.Popen = Popen
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if program == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *more[1:]]
        exec(compile(more[0], "<string>", "exec"), main.__dict__)
    elif program == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = more
        runpy.run_module(more[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(program).resolve().parent))
        sys.argv = words
        runpy.run_path(program, run_name="__main__")


def _warn_as_usual(options: Sequence[str]) -> None:
    """The filters of an interpreter that was started with these options."""
    warnings.resetwarnings()
    for kind, category, module in (
        ("ignore", ResourceWarning, ""),
        ("ignore", ImportWarning, ""),
        ("ignore", PendingDeprecationWarning, ""),
        ("ignore", DeprecationWarning, ""),
        ("default", DeprecationWarning, "__main__"),
    ):
        warnings.filterwarnings(kind, category=category, module=module)  # type: ignore[arg-type]
    for option in options:
        warnings._setoption(option)  # type: ignore[attr-defined]


if __name__ == "__main__":
    _become(_serve(*sys.argv[1:]))
