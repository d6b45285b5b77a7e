"""What an object in a checkpoint is, if it is not a plain tensor: a tensor of another kind, a module, a mapping.

Nothing is called or imported: the answers follow from an object's name and its arguments. Sources:
`torch/_utils.py` (`_rebuild_*`), `torch/distributed/tensor/_api.py`, `torch/nn/modules/module.py` (`state_dict`),
`torch/fx/graph_module.py` (`reduce_graph_module`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ckptconv.errors import UnreadableError, printable
from ckptconv.formats.records import CallRecord
from ckptconv.spec import TensorSpec, Unreadable

_GATHER = (
    "Gather it before saving, with torch.distributed.checkpoint.state_dict: "
    "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))."
)
_GATHER_FSDP = (
    "Gather it before saving: FSDP.set_state_dict_type(model, StateDictType.FULL_STATE_DICT). "
    "DINOv2 writes its gathered teacher to eval/training_*/teacher_checkpoint.pth."
)
_DEQUANTISE = "Convert it to floating point before saving: .dequantize(). Or take the checkpoint before quantisation."
_DENSE = "Make it dense before saving: .to_dense()."
_EMPTY = "It holds no values: load the weights and run the network once before saving."
_RESOLVE = "Save the result: .resolve_neg().resolve_conj()."
_PLAIN = "Convert it to a plain tensor on a machine that has its class, and save that."

_KINDS: tuple[tuple[str, str, str], ...] = (
    ("torch._utils._rebuild_sparse", "a sparse tensor", _DENSE),
    ("torch._utils._rebuild_qtensor", "a quantised tensor", _DEQUANTISE),
    ("torch._utils._rebuild_meta_tensor", "a tensor on the device 'meta'", _EMPTY),
    ("torch._utils._rebuild_nested_tensor", "a nested tensor", "Save its parts, or .to_padded_tensor(0.0)."),
    ("torch.nested.", "a nested tensor", "Save its parts, or .to_padded_tensor(0.0)."),
    ("torch._utils._rebuild_", "a tensor of another device", "Move it to the CPU before saving: .cpu()."),
    ("torch.nn.parameter.Uninitialized", "a parameter without a shape yet", _EMPTY),
    ("torch.masked.", "a masked tensor", "Save its numbers: .to_tensor(0.0)."),
    ("torch.distributed._shard.", "one rank's shard of a tensor", _GATHER_FSDP),
    ("torch.distributed.", "one rank's part of a tensor", _GATHER),
    ("torch.Tensor with pending", "a tensor that is still to be negated or conjugated", _RESOLVE),
    ("torch.Tensor of", "a tensor of a type unknown here", "Save it as float32 or another usual type: .float()."),
    ("torchao.", "a quantised tensor", _DEQUANTISE),
    ("torch.ao.", "a quantised tensor", _DEQUANTISE),
    ("bitsandbytes.", "a quantised tensor", _DEQUANTISE),
    ("optimum.quanto.", "a quantised tensor", _DEQUANTISE),
    ("quanto.", "a quantised tensor", _DEQUANTISE),
    ("transformer_engine.", "a quantised tensor", _DEQUANTISE),
    ("compressed_tensors.", "a quantised tensor", _DEQUANTISE),
    ("hqq.", "a quantised tensor", _DEQUANTISE),
)  # fmt: skip
"""Prefixes of the names that represent tensors; the first match counts."""

_MAX_MODULES = 50_000
_MAX_NAMES = 200_000
_MAX_MODULE_DEPTH = 64
_MAX_VALUES = 64


class ObjectInterpreter:
    """Tells what each value of one file's tree is. ``spec_of`` knows the plain tensors."""

    def __init__(self, spec_of: Callable[[object], TensorSpec | None]) -> None:
        self._spec_of = spec_of
        self._state_dicts: dict[int, Mapping[Any, Any]] = {}
        self._modules = self._names = 0

    def __call__(self, value: object) -> TensorSpec | Unreadable | Mapping[Any, Any] | None:
        spec = self._spec_of(value)
        if spec is not None:
            return spec
        if isinstance(value, CallRecord):
            return self._of_call(value)
        if isinstance(value, list | tuple):  # torch.ao keeps (weight, bias) under one name
            parts = (self._unreadable(part) for part in value[:4] if isinstance(part, CallRecord))
            return next((part for part in parts if part is not None and part.certain), None)
        unreadable = getattr(value, "unreadable", None)
        return unreadable if isinstance(unreadable, Unreadable) else None

    def _of_call(self, value: CallRecord) -> Unreadable | Mapping[Any, Any] | None:
        module = _module(value)
        if module is not None:
            state_dict = self._state_dicts.get(id(value))
            if state_dict is None:
                state_dict = self._state_dicts[id(value)] = dict(self._state_dict(module, "", 0))
            return state_dict
        return self._unreadable(value) or value.pairs

    def _unreadable(self, value: CallRecord) -> Unreadable | None:
        kind = value.kind
        for start, what, advice in _KINDS:
            if kind.startswith(start) and not (start == "torch.distributed." and not kind.endswith("Tensor")):
                if kind.startswith("torch.Tensor of") and isinstance(value.args, tuple) and value.args[:1] > ("",):
                    return Unreadable(f"a tensor of type {printable(str(value.args[0]))}", advice)
                plain = kind.startswith(("torch._utils.", "torch.Tensor "))
                return Unreadable(what if plain else f"{what} ({printable(kind)})", advice)
        if kind.endswith(("Tensor", "Parameter")):
            return Unreadable(f"a tensor of the class {printable(kind)}", _PLAIN)
        if value.pairs is None and self._holds_tensors(value):
            return Unreadable(f"an object that holds tensors ({printable(kind)})", _PLAIN, certain=False)
        return None

    def _holds_tensors(self, value: CallRecord) -> bool:
        """Whether a tensor is among an object's arguments and attributes, at most a few levels below it."""
        queue: list[object] = [value.args, value.state]
        for _ in range(_MAX_VALUES):
            if not queue:
                return False
            one = queue.pop()
            if self._spec_of(one) is not None or isinstance(getattr(one, "unreadable", None), Unreadable):
                return True
            if isinstance(one, tuple | list):
                queue.extend(one[:_MAX_VALUES])
            elif isinstance(one, dict):
                queue.extend(list(one.values())[:_MAX_VALUES])
        return False

    def _state_dict(self, module: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, object]]:
        """The names and values that a module's `state_dict()` would give."""
        self._modules += 1
        if depth > _MAX_MODULE_DEPTH or self._modules > _MAX_MODULES:
            raise UnreadableError(
                "the file nests its modules too deeply",
                "It was not written by a training script. Download it again from its source.",
            )
        transient = _set(module.get("_non_persistent_buffers_set"))
        for kind in ("_parameters", "_buffers"):
            for name, value in module[kind].items():
                if isinstance(name, str) and value is not None and not (kind == "_buffers" and name in transient):
                    self._names += 1
                    if self._names > _MAX_NAMES:
                        raise UnreadableError(
                            f"the file's modules hold more than {_MAX_NAMES:,} names",
                            "It was not written by a training script. Download it again from its source.",
                        )
                    yield prefix + name, value
        for name, child in module["_modules"].items():
            if child is None:
                continue
            inside = _module(child) if isinstance(child, CallRecord) else None
            if not isinstance(name, str):
                raise UnreadableError(
                    "a module in the file has a part whose name is not text", "Download the file again."
                )
            if inside is None:
                yield prefix + name, child
            else:
                yield from self._state_dict(inside, f"{prefix}{name}.", depth + 1)


def _module(value: CallRecord) -> Mapping[Any, Any] | None:
    """The attributes of a pickled torch.nn.Module; None for any other object."""
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    if value.kind.endswith(".reduce_graph_module") and isinstance(value.args, tuple) and value.args:
        state = value.args[0]
    if not isinstance(state, dict):
        return None
    parts = [state.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
    return state if all(isinstance(part, dict) for part in parts) else None


def _set(value: object) -> frozenset[str]:
    """The texts of a set as pickles write it: a list here, or in protocol 2 a call of `set`."""
    if isinstance(value, CallRecord) and isinstance(value.args, tuple) and value.args:
        value = value.args[0]
    return frozenset(v for v in value if isinstance(v, str)) if isinstance(value, list | tuple) else frozenset()
