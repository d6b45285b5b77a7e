"""Checkpoints that a config names by an address: fetched by our own code, and given to a detector as a download is.

mmengine downloads ``https://`` with `torch.hub.load_state_dict_from_url` (`load_from_http` of
`mmengine/runner/checkpoint.py`, 0.10.7), which keeps files by their last names alone and unpickles with
``weights_only=False``. Here nothing of that is called.
"""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ckptconv.errors import UsageError, shell_word
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.methods import registry
from ckptconv.mmdetection.check.diagnosis import Finding
from ckptconv.mmdetection.hints import conversion, more_than_tensors, raw_method, through_the_loader
from ckptconv.mmdetection.loading.inert_load import require_safe
from ckptconv.small_file import is_file
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.text import some

_COMPARED = "check compares with a file or with an https:// address."
_TABLES = ("torchvision", "modelzoo", "open-mmlab", "openmmlab", "mmcls")
_STORES = ("hf", "s3", "gs")


@dataclass(frozen=True)
class Held:
    """A checkpoint that a config names, and the file here: itself, or its copy in the cache.

    ``shown`` is what the config says without anything secret. ``transfers`` is () for a file.
    """

    checkpoint: str
    shown: str
    path: Path
    transfers: tuple[Transfer, ...] = ()


def hold(checkpoint: str, module: str, fetching: Fetching) -> Held:
    """The file of a checkpoint, fetched whole where it is an address that mmengine would download.

    Raises UsageError for what is neither, UnreadableError for what is broken or not safe, and what `sources` raises for
    an address that cannot be fetched.
    """
    scheme, mark, _ = checkpoint.partition("://")
    if mark and scheme in ("https", "http"):
        address = locate(checkpoint, replace(fetching, whole=True))
        with open_checkpoint(address.path) as opened:
            require_safe(opened, address.label)
            path = opened.sources[0].path
            assert isinstance(path, Path)
            return Held(checkpoint, address.label, path, opened.transfers)
    path = Path(checkpoint).expanduser()
    if not mark and is_file(path):
        with open_checkpoint(path) as opened:
            require_safe(opened, checkpoint)
        return Held(checkpoint, checkpoint, path)
    raise _not_there(checkpoint, scheme if mark else "", module)


def _not_there(checkpoint: str, scheme: str, module: str) -> UsageError:
    path = Path(checkpoint).expanduser()
    start, command = f"{module} starts from {checkpoint}", conversion(checkpoint, None)[0]
    if scheme in _STORES:
        return UsageError(f"{start}, which mmengine does not fetch by itself", f"Convert it first: {command}")
    if scheme in _TABLES:
        return UsageError(
            f"{start}, which mmengine looks up in a table of its own",
            f"Put a converted file there, or write a config for one with ckptconv emit-config: {_COMPARED}",
        )
    if scheme:
        return UsageError(f"{start}, which is no file here", f"Download it and give its path: {_COMPARED}")
    if checkpoint in registry.releases():
        return UsageError(
            f"{start}, the name of a release, which mmengine takes for a path", f"Convert it first: {command}"
        )
    if path.is_absolute():
        return UsageError(
            f"{start}, and there is no such file",
            "Copy it there, or name the place where it is: beside the config that is "
            f"checkpoint={'{{ fileDirname }}/' + path.name!r}",
        )
    return UsageError(
        f"{start}, and there is no such file",
        "Relative paths are seen from the folder where the training is started: go there, or mend the path.",
    )


@contextlib.contextmanager
def downloaded(held: Iterable[Held]) -> Iterator[None]:
    """While it lasts, mmengine gets what is behind these addresses from the inert reader, and downloads nothing."""
    from mmengine.runner import CheckpointLoader

    from ckptconv.mmdetection.loading.torch_objects import load

    here = {one.checkpoint: one.path for one in held if one.transfers}
    own = CheckpointLoader.__dict__["load_checkpoint"]

    def load_checkpoint(cls: Any, filename: str, map_location: Any = None, logger: Any = "current") -> Any:
        if filename not in here:
            return own.__get__(None, cls)(filename, map_location, logger)
        with open_checkpoint(here[filename]) as checkpoint:
            if not checkpoint.format.startswith("torch"):
                raise UnpicklingError(f"what mmengine downloads is read by torch.load, and this is {checkpoint.format}")
        return load(str(here[filename]), map_location)

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = own


def problems(held: Held) -> Iterator[Finding]:
    """What a training would find under the address's last name, if that is another file."""
    if not held.transfers:
        return
    import torch.hub

    theirs = Path(torch.hub.get_dir(), "checkpoints", held.checkpoint.partition("?")[0].rpartition("/")[2]).absolute()
    if theirs.is_file() and not filecmp.cmp(theirs, held.path, shallow=False):
        yield Finding(
            f"a training would start from another file: torch.hub keeps downloads by their names alone, and has "
            f"{theirs}, which is not what {held.shown} has",
            (f"rm {shell_word(str(theirs))}",),
        )


def notes(held: Held, checkpoint: Checkpoint, line: str, unpickled: Container[Path]) -> Iterator[Finding]:
    """Whether a training imports and calls what the file names; ``line`` is where the config says the module.

    ``unpickled`` are the files that this installation reads so: `inert_loading.Seen`.
    """
    named = more_than_tensors(checkpoint.named)
    command, target = conversion(held.shown, raw_method(checkpoint)) if named else ("", "")
    convert = f"{command}, then {line}.init_cfg=dict(type='Pretrained', checkpoint={target!r})"
    if held.transfers and named:
        yield Finding(
            f"a training downloads this with torch.hub, which imports and calls what the file names: {some(named, 3)}",
            (convert,),
        )
    elif held.path.resolve() in unpickled:
        yield Finding(
            f"a training unpickles this, which imports and calls what the file names: {some(named, 3)}",
            (convert, *through_the_loader(checkpoint, "runs nothing")),
        )
