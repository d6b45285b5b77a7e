"""While a detector is built and initialised, every checkpoint is read by the inert reader, whichever code loads it.

A training reads local checkpoints with `torch.load`, which on many stacks runs what a file says: on torch before 2.6,
with ``weights_only=False``, and with onedl-mmengine 0.10.12, which tries again unsafely (`_safe_torch_load` of its
`mmengine/runner/checkpoint.py`). Here the reader opens each file first, refuses a broken or unsafe one, and gives the
contents of any other.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptconv.arguments import call
from ckptconv.errors import UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.dangerous_calls import is_dangerous
from ckptconv.formats.interface import Checkpoint
from ckptconv.mmdetection.hints import convert_command, non_tensors, raw_method
from ckptconv.small_file import is_file, read_small
from ckptconv.text import some

_KEYS = ("checkpoint", "load_from", "pretrained", "resume", "resume_from", "teacher_ckpt", "weights")
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pth.tar")
_YES = ("1", "y", "yes", "true")  # torch/serialization.py, `true_values`
_PLAIN = {
    "builtins": "set frozenset list dict tuple str bytes bytearray int float bool complex slice range object",
    "collections": "OrderedDict Counter deque",
    "copyreg": "_reconstructor",
    "_codecs": "encode",
    "numpy": "ndarray dtype",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "torch": "Size device",
    "torch.storage": "_load_from_bytes TypedStorage UntypedStorage",
}
"""What pickles of numbers, arrays and tensors name. `_load_from_bytes` calls `torch.load`, which is replaced here."""


@dataclass
class LoadLog:
    """Files that a training would unpickle, with what they name besides tensors; and the refusals of unsafe files."""

    unpickled: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    unsafe: list[UnreadableError] = field(default_factory=list)


_log: LoadLog | None = None
_thread = 0  # the thread whose unpickling is restricted
_plain = False  # whether to plain data


def require_safe(checkpoint: Checkpoint, shown: str) -> None:
    """Raise UnreadableError for a file that runs code when it is unpickled."""
    if checkpoint.dangerous:
        raise _unsafe(checkpoint, shown)


def _unsafe(checkpoint: Checkpoint, shown: str) -> UnreadableError:
    method = raw_method(checkpoint) if checkpoint.sections else None
    advice = convert_command(shown, method)[0] if method else call("inspect", shown)
    return UnreadableError(
        f"{shown} is not safe: unpickling it would call {some(checkpoint.dangerous, 3)}. Nothing was run here",
        f"{'Convert its weights into a safe file' if method else 'See what it holds'}: {advice}",
    )


def require_readable(config: Mapping[str, Any], work_dir: Path) -> None:
    """Open every local checkpoint that a config names with the inert reader. Missing files are left to the caller.

    ``work_dir`` is where a training would look for the checkpoint that it resumes from.
    Raises UnreadableError for a file that is unsafe, and for a broken one that is named under the key of a checkpoint.
    """
    config = dict(config.items())  # mmengine's Config is not a Mapping
    meant = {name for name, key in _texts(config) if key in _KEYS} | {*_resumed(config, work_dir)}
    for name in dict.fromkeys((*checkpoint_names(config), *meant)):
        path = Path(os.path.expanduser(name))  # noqa: PTH111 (Path.expanduser fails without a home)
        if not is_file(path):
            continue
        with contextlib.ExitStack() as stack:
            try:
                checkpoint = stack.enter_context(open_checkpoint(path))
            except UnreadableError:
                if name in meant:
                    raise
                continue  # any data may have such a name; if it is loaded, `torch.load` below reads it
            require_safe(checkpoint, name)


def checkpoint_names(config: object) -> Iterator[str]:
    """Texts of a config that may name a checkpoint: under the key of one, or with a checkpoint's suffix."""
    return (name for name, key in _texts(config) if key in _KEYS or name.endswith(_SUFFIXES))


def _texts(node: object, key: object = "") -> Iterator[tuple[str, object]]:
    """Every text in a config with its key; the texts of a list have the list's key."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _texts(child, name)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _texts(child, key)
    elif isinstance(node, str):
        yield node, key


def _resumed(config: Mapping[str, Any], work_dir: Path) -> Iterator[str]:
    """The checkpoint that mmengine finds for ``resume=True``: `find_latest_checkpoint` of its runner/checkpoint.py."""
    if config.get("resume") and not config.get("load_from"):
        with contextlib.suppress(OSError):
            yield read_small(work_dir / "last_checkpoint", 1 << 12).decode(errors="replace").strip()


@contextlib.contextmanager
def inert_loading(plain: bool = True) -> Iterator[LoadLog]:
    """While it lasts, `torch.load` is the inert reader, and other unpickling in this thread may give plain data only.

    Without ``plain`` it may give anything that calls nothing dangerous: the processes of a training send each other
    objects. The refusal of an unsafe file is raised again at the end if other code has caught it.
    """
    import torch

    global _log, _thread, _plain
    before, own = (_log, _thread, _plain), torch.load
    log = _log or LoadLog()
    if _log is None:
        torch.load = torch.serialization.load = _inert_load(own, log)
    _add_audit_hook()
    _log, _thread, _plain = log, threading.get_ident(), plain
    try:
        yield log
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None or refusal is error:
            raise
        raise refusal from None
    finally:
        _log, _thread, _plain = before
        if _log is None:
            torch.load = torch.serialization.load = own
    if log.unsafe:
        raise log.unsafe[0]


def _refusal(error: BaseException | None) -> UnreadableError | None:
    """The inert reader's error, if an error comes from it."""
    while error is not None and not isinstance(error, UnreadableError):
        error = error.__cause__ or error.__context__
    return error


def _inert_load(own: Any, log: LoadLog) -> Any:
    """`torch.load` by the inert reader; ``own`` is torch's.

    Where torch would load with ``weights_only=True``, which runs no code, it loads the file too, after the reader has
    passed it: so that what it refuses in a training is refused here.
    """

    @functools.wraps(own)
    def load(f: Any, map_location: Any = None, pickle_module: Any = None, **options: Any) -> Any:
        from ckptconv.mmdetection.loading import torch_objects

        with _file_of(f) as file:
            if file is None:
                return own(f, map_location, pickle_module, **options)  # the file does not exist
            path, shown = file
            try:
                with open_checkpoint(path) as checkpoint:
                    if checkpoint.dangerous:
                        log.unsafe.append(_unsafe(checkpoint, shown))
                        raise log.unsafe[-1]
                    named, is_torch = non_tensors(checkpoint.named), checkpoint.format.startswith("torch")
            except UnreadableError as error:
                error.message = error.message.replace(str(path), shown)  # where it was copied to
                raise
            if not is_torch or _takes_tensors_only(own, pickle_module, options.get("weights_only")):
                own(path, "cpu", pickle_module, weights_only=True)
            elif named:
                log.unpickled[path.resolve()] = named
            return torch_objects.load(str(path), map_location)

    return load


@contextlib.contextmanager
def _file_of(f: Any) -> Iterator[tuple[Path, str] | None]:
    """The file of an argument of `torch.load`, and its name for people; None if it does not exist."""
    if isinstance(f, str | os.PathLike):
        path = Path(f)
        yield (path, str(path)) if is_file(path) else None
        return
    with tempfile.NamedTemporaryFile(prefix="ckptconv-") as copy:
        shutil.copyfileobj(f, copy)
        copy.flush()
        yield Path(copy.name), str(getattr(f, "name", "a checkpoint in memory"))


def _takes_tensors_only(own: Any, pickle_module: Any, weights_only: bool | None) -> bool:
    """Whether torch would read this with ``weights_only=True``: torch/serialization.py, `load`, 1.13 to 2.13."""
    import torch

    if os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0").lower() in _YES:
        return True
    if weights_only is not None:
        return weights_only
    default = inspect.signature(own).parameters["weights_only"].default
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0").lower() in _YES or pickle_module is not None:
        return False
    return default is not False and torch.__version__ >= (2, 6)


@functools.cache
def _add_audit_hook() -> None:
    """Python reports each name that an unpickler looks up; an audit hook cannot be removed again."""
    sys.addaudithook(_refuse_globals)


def _refuse_globals(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "pickle.find_class" or _log is None or _thread != threading.get_ident():
        return
    module, name = arguments
    if not (_is_plain(module, name) if _plain else _is_usual(module, name)):
        refused = UnreadableError(
            f"the detector unpickles a file that names {module}.{name}, which is not plain data. Nothing was run here",
            "Save that file as tensors or arrays: torch.save of a state dict, or numpy.save.",
        )
        _log.unsafe.append(refused)
        raise refused


def _is_plain(module: str, name: str) -> bool:
    if module == "torch._utils" and name.startswith("_rebuild_"):
        return True
    return (module == "torch" and name.endswith("Storage")) or name in _PLAIN.get(module, "").split()


def _is_usual(module: str, name: str) -> bool:
    """Whether the processes of a training may send it to each other."""
    return module.startswith("multiprocessing.") or not is_dangerous(f"{module}.{name}")
