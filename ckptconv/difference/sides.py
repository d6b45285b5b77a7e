"""What is compared: a checkpoint file, a module or a state dict, each as sections whose tensors are read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptconv.conversion.convert import MethodLike, PathLike
from ckptconv.errors import UsageError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.storage import StoredTensor
from ckptconv.methods import registry
from ckptconv.planning.matching import Move
from ckptconv.planning.options import Options
from ckptconv.planning.plan_search import Sections
from ckptconv.remap import array_of, look
from ckptconv.sections import find_sections, section_at
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.spec import TensorSpec

if TYPE_CHECKING:
    import torch

    from ckptconv.ops.interface import Array


@dataclass(frozen=True)
class Side:
    """One of the two. ``format`` and ``size`` (bytes) are '' and 0 for what is in memory."""

    label: str
    format: str
    size: int
    sections: Sections
    method: MethodLike
    options: Options
    checkpoint: Checkpoint | None = None

    def specs(self, section: str) -> Mapping[str, TensorSpec]:
        found = section_at(self.sections, section)
        return found.tensors if found else {}

    def read(self, section: str, move: Move) -> Array:
        """The numbers of one tensor of the network: bfloat16 and smaller types as unsigned integers."""
        parts = [self._array(section, name) for name in move.sources]
        return parts[0] if move.op is None else move.op.apply(parts)

    def fetch(self, section: str, moves: list[Move]) -> None:
        """Fetch what these moves read, in few requests, where it lies elsewhere."""
        if self.checkpoint is not None:
            stored = self.checkpoint.tensors(section)
            self.checkpoint.fetch(stored[name] for move in moves for name in move.sources)

    def _array(self, section: str, name: str) -> Array:
        if self.checkpoint is not None:
            stored: StoredTensor = self.checkpoint.tensors(section)[name]
            return self.checkpoint.array(stored)
        found = section_at(self.sections, section)
        assert found is not None
        array: Array = array_of(found.node[name])
        return array


@contextmanager
def opened(
    given: PathLike | torch.nn.Module | Mapping[str, Any], method: MethodLike, options: Options, fetching: Fetching
) -> Iterator[Side]:
    """One side, open. Raises UnreadableError for a file that is not a checkpoint, UsageError for another object."""
    if isinstance(given, Mapping) or callable(getattr(given, "state_dict", None)):
        state = given if isinstance(given, Mapping) else given.state_dict()  # type: ignore[union-attr]
        label = "the state dict" if isinstance(given, Mapping) else f"the {type(given).__name__}"
        yield Side(label, "", 0, find_sections(state, look), method, options)
        return
    if not hasattr(given, "__fspath__") and not isinstance(given, str):
        raise UsageError(
            f"an object of class {type(given).__name__} cannot be compared",
            "Give a file, a torch.nn.Module or a state dict.",
        )
    found = locate(given, fetching, options.methods)
    method = found.method or method if registry.is_auto(method) else method
    with open_checkpoint(found.path) as checkpoint:
        yield Side(found.label, checkpoint.format, checkpoint.size, checkpoint.sections, method, options, checkpoint)
