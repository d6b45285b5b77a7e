"""What the tests of the families share: a file's names from a network's entries."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import settings

from ckptconv.spec import DTYPES, TensorSpec

SLOW = settings(deadline=None, derandomize=True, max_examples=60)
_WHOLE = (".num_batches_tracked", "_index")  # ends of names of tensors of whole numbers


def state(entries: Mapping[str, tuple[int, ...]]) -> dict[str, TensorSpec]:
    """A section with these names and shapes, of the types that torch gives them."""
    return {
        name: TensorSpec(shape, DTYPES["int64" if name.endswith(_WHOLE) else "float32"])
        for name, shape in entries.items()
    }
