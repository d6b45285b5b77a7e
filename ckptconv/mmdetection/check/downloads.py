"""The files of a config's checkpoints: those at an address are fetched here, and given to the detector.

mmengine downloads ``https://`` with `torch.hub.load_state_dict_from_url` (`load_from_http` of
`mmengine/runner/checkpoint.py`, 0.10.7), which keeps files by their last names alone and unpickles with
``weights_only=False``. Here nothing of that is called.
"""

from __future__ import annotations

import contextlib
import filecmp
import functools
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ckptconv.conversion.converted import Converted
from ckptconv.errors import UsageError, shell_word
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.methods import registry
from ckptconv.mmdetection.check.evidence import Finding
from ckptconv.mmdetection.check.guard_record import fingerprint_in
from ckptconv.mmdetection.hints import convert_command, loader_line, non_tensors, raw_method
from ckptconv.mmdetection.loading.inert_load import require_safe
from ckptconv.small_file import is_file
from ckptconv.sources.file import Transfer
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.text import some

_READS = "check reads a file or an https:// address."
_TABLES = ("torchvision", "modelzoo", "open-mmlab", "openmmlab", "mmcls")
_STORES = ("hf", "s3", "gs")


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint that a detector reads, and the file on this machine: itself, or its copy in the cache.

    ``name`` is what the config says; ``shown`` is the same without anything secret. ``converted`` is what the file says
    of itself. ``transfers`` is () for a file that was not fetched.
    """

    name: str
    shown: str
    path: Path
    converted: Converted
    transfers: tuple[Transfer, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """That of the weights, as `convert` prints it; '' if mmengine finds none in the file."""
        with open_checkpoint(self.path) as checkpoint:
            return fingerprint_in(checkpoint, self.converted.section)


def fetch(name: str, module: str, fetching: Fetching) -> LocalCheckpoint:
    """The file of a checkpoint, fetched whole where it is an address that mmengine would download.

    Raises UsageError for anything else, UnreadableError for a file that is broken or not safe, and what `sources`
    raises for an address that cannot be fetched.
    """
    scheme, separator, _ = name.partition("://")
    if separator and scheme in ("https", "http"):
        address = locate(name, replace(fetching, whole=True))
        with open_checkpoint(address.path) as checkpoint:
            require_safe(checkpoint, address.label)
            path = checkpoint.sources[0].path
            assert isinstance(path, Path)
            return LocalCheckpoint(name, address.label, path, Converted.read(checkpoint), checkpoint.transfers)
    path = Path(name).expanduser()
    if not separator and is_file(path):
        with open_checkpoint(path) as checkpoint:
            require_safe(checkpoint, name)
            return LocalCheckpoint(name, name, path, Converted.read(checkpoint))
    raise _not_there(name, scheme if separator else "", module)


def _not_there(checkpoint: str, scheme: str, module: str) -> UsageError:
    path = Path(checkpoint).expanduser()
    start, command = f"{module} starts from {checkpoint}", convert_command(checkpoint, None)[0]
    if scheme in _STORES:
        return UsageError(f"{start}, which mmengine cannot download", f"Convert it first: {command}")
    if scheme in _TABLES:
        return UsageError(
            f"{start}, which mmengine looks up in its own table",
            f"Name a converted file instead, or write a config for one with ckptconv emit-config: {_READS}",
        )
    if scheme:
        return UsageError(f"{start}, which is not a file on this machine", f"Download it and give its path: {_READS}")
    if checkpoint in registry.releases():
        return UsageError(
            f"{start}, the name of a release, which mmengine reads as a path", f"Convert it first: {command}"
        )
    if path.is_absolute():
        return UsageError(
            f"{start}, but the file does not exist",
            "Copy it there, or give its path. For a file next to the config: "
            f"checkpoint={'{{ fileDirname }}/' + path.name!r}",
        )
    return UsageError(
        f"{start}, but the file does not exist",
        "A relative path starts from the folder where the training is started: go there, or correct the path.",
    )


@contextlib.contextmanager
def served(checkpoints: Iterable[LocalCheckpoint]) -> Iterator[None]:
    """While it lasts, mmengine gets these addresses from the inert reader instead of downloading them."""
    from mmengine.runner import CheckpointLoader

    from ckptconv.mmdetection.loading.torch_objects import load

    here = {one.name: one.path for one in checkpoints if one.transfers}
    own = CheckpointLoader.__dict__["load_checkpoint"]

    def load_checkpoint(cls: Any, filename: str, map_location: Any = None, logger: Any = "current") -> Any:
        if filename not in here:
            return own.__get__(None, cls)(filename, map_location, logger)
        with open_checkpoint(here[filename]) as checkpoint:
            if not checkpoint.format.startswith("torch"):
                raise UnpicklingError(f"mmengine reads downloads with torch.load, and this is {checkpoint.format}")
        return load(str(here[filename]), map_location)

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = own


def problems(local: LocalCheckpoint) -> Iterator[Finding]:
    """What a training would find under the address's last name, if that is another file."""
    if not local.transfers:
        return
    import torch.hub

    cached = Path(torch.hub.get_dir(), "checkpoints", local.name.partition("?")[0].rpartition("/")[2]).absolute()
    if cached.is_file() and not filecmp.cmp(cached, local.path, shallow=False):
        yield Finding(
            f"a training would start from another file: torch.hub finds downloads by file name alone, and {cached} is "
            f"not the file at {local.shown}",
            (f"rm {shell_word(str(cached))}",),
        )


def notes(
    local: LocalCheckpoint, checkpoint: Checkpoint, config_path: str, unpickled: Container[Path]
) -> Iterator[Finding]:
    """Whether a training imports and calls what the file names; ``config_path`` is where the config says the module.

    ``unpickled`` are the files that this installation unpickles: `inert_load.LoadLog`.
    """
    named = non_tensors(checkpoint.named)
    command, target = convert_command(local.shown, raw_method(checkpoint)) if named else ("", "")
    convert = f"{command}, then {config_path}.init_cfg=dict(type='Pretrained', checkpoint={target!r})"
    if local.transfers and named:
        yield Finding(
            "a training downloads this file with torch.hub, which imports and calls what the file names: "
            f"{some(named, 3)}",
            (convert,),
        )
    elif local.path.resolve() in unpickled:
        yield Finding(
            f"a training unpickles this file, which imports and calls what the file names: {some(named, 3)}",
            (convert, *loader_line(checkpoint, "runs nothing")),
        )
