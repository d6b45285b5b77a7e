"""Plans applied to tensors that a Python program already holds: `remap_state_dict`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ckptconv.backbones import TargetName
from ckptconv.conversion.convert import PathLike, options_of
from ckptconv.methods.interface import Method
from ckptconv.planning.adjust import adjust_plan
from ckptconv.planning.identify import choose
from ckptconv.planning.matching import Move
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.rules import Rule
from ckptconv.sections import find_sections, section_at
from ckptconv.spec import DTYPES, TensorSpec, Unreadable

_EMPTY = "It holds no numbers: load the network's weights first."


def spec_of(value: object) -> TensorSpec | None:
    """Shape and element type of a torch tensor or numpy array; None for anything else."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    known = DTYPES.get(str(dtype).removeprefix("torch."))
    if known is None or not isinstance(shape, tuple):
        return None
    return TensorSpec(tuple(int(n) for n in shape), known)


def _special(value: Any) -> Unreadable | None:
    """Why a tensor in memory does not hold all its numbers as a plain one does; None for a plain one.

    Nothing is imported: the answers follow from its attributes (`torch/_tensor.py`, `torch/distributed/tensor/_api.py`,
    `torch/nn/parameter.py`, `numpy/ma/core.py`).
    """
    kind = type(value)
    if not hasattr(kind, "dtype"):
        return None
    own = any("__torch_dispatch__" in vars(one) and one.__module__ != "torch" for one in kind.__mro__)
    layout = getattr(value, "layout", "torch.strided")
    reasons = (
        (
            hasattr(kind, "full_tensor"),
            "one rank's part of a tensor",
            "Gather it first, on every rank: .full_tensor().",
        ),
        (
            hasattr(kind, "local_shards"),
            "one rank's shard of a tensor",
            "Gather the state dict first: full_state_dict.",
        ),
        (kind.__name__.startswith("Uninitialized"), "a parameter without a shape yet", _EMPTY),
        (getattr(value, "is_nested", False), "a nested tensor", "Give its parts, or .to_padded_tensor(0.0)."),
        (own, f"a tensor of the class {kind.__name__}", "Make a plain tensor of it first."),
        (getattr(value, "is_meta", False), "a tensor on the device 'meta'", _EMPTY),
        (str(layout) != "torch.strided", f"a tensor of the layout {layout}", "Make it dense first: .to_dense()."),
        (hasattr(kind, "filled"), "a masked array", "Give its numbers: .filled(0.0)."),
    )
    return next((Unreadable(what, advice) for holds, what, advice in reasons if holds), None)


def look(value: object) -> TensorSpec | Unreadable | None:
    """What a value in memory is, for `find_sections`."""
    special = _special(value)
    if special is not None:
        return special
    spec = spec_of(value)
    if spec is None and getattr(value, "shape", None) is not None and getattr(value, "dtype", None) is not None:
        return Unreadable(f"a tensor of type {value.dtype}", "Make it float32 first: .float(), .dequantize().")  # type: ignore[attr-defined]
    return spec


def remap_state_dict(
    state_dict: Mapping[str, Any],
    method: str | Method | Iterable[Rule] = "auto",
    *,
    options: Options | None = None,
    drop: Iterable[str] | None = None,
    strip_prefix: str | None = None,
    section: str | None = None,
    target: TargetName | None = None,
    rules: PathLike | None = None,
    channels: Sequence[int] | None = None,
    image_size: int | None = None,
    patch_size: int | None = None,
    num_heads: int | None = None,
    dtype: str | None = None,
) -> tuple[dict[str, Any], Plan]:
    """Rename (and where rules say so, reshape) the tensors of a checkpoint that is already in memory.

    Args:
        state_dict: names to torch tensors or numpy arrays, bare or nested in a checkpoint as ``torch.load`` gives it.
        method: 'auto', a method's name, a `Method`, or rules made with `keep`, `drop`, `fuse`, `split` and `under`.
        options, drop, strip_prefix, section, target, rules, channels, image_size, patch_size, num_heads, dtype: as
            for `convert`.

    Returns:
        The new dict, and the plan it follows. A tensor whose name alone changes is the very object that came in.

    Raises:
        UnidentifiedError: no method, or more than one, explains the names.
        IncompletePlanError: the method leaves a tensor unexplained, missing or of the wrong shape.
        UsageError: an unknown method, section or target.
    """
    sections = find_sections(state_dict, look)
    options = options_of(
        options,
        rules,
        drop=drop,
        strip_prefix=strip_prefix,
        section=section,
        target=target,
        channels=channels,
        image_size=image_size,
        patch_size=patch_size,
        num_heads=num_heads,
        dtype=dtype,
    )
    plan = adjust_plan(choose(sections, method, options), options)
    chosen = section_at(sections, plan.section)
    values = chosen.node if chosen else {}
    return {m.target: _moved([values[s] for s in m.sources], m) for m in plan.moves}, plan


def _moved(values: list[Any], move: Move) -> Any:
    if move.op is None:
        return values[0]
    if not hasattr(values[0], "detach"):
        return move.op.apply(values)
    import torch

    arrays = [array_of(v) for v in values]
    result = torch.from_numpy(move.op.apply(arrays).copy())
    return result.view(getattr(torch, move.spec.dtype.name)).reshape(move.spec.shape).to(values[0].device)


def array_of(tensor: Any) -> Any:
    """A tensor's numbers for an op: as integers of its size where numpy has no word for its type."""
    if not hasattr(tensor, "detach"):
        return tensor
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if DTYPES[str(tensor.dtype).removeprefix("torch.")].numpy is not None:
        return tensor.numpy()
    return tensor.view({1: torch.uint8, 2: torch.uint16, 4: torch.int32}[tensor.element_size()]).numpy()
