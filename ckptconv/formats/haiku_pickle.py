"""Handlers for the few names that dill, jax and haiku put around numpy's arrays: named tuples, arrays, mappings.

Sources: `dill/_dill.py` (`_create_namedtuple`, `_create_array`, and up to 0.3.1, which names a function of C by its
module, `_import_module` and `_get_attr`), `jax/_src/array.py` and, before 2023,
`jax/_src/device_array.py` (`__reduce__`; jax before 2022 pickles an array as numpy does), dm-haiku's
`haiku/_src/data_structures.py` (`__reduce__` of `FlatMapping`, and of `frozendict` before August 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.formats.numpy_pickle import PickledArray
from ckptconv.formats.records import CallRecord, ClassStub, Global, Handler, Malformed, checked_key
from ckptconv.formats.torch_pickle import PickledTensors


def handlers(pickled: PickledTensors) -> Mapping[tuple[str, str], Handler]:
    """Those of `PickledTensors`, and those for what is around its arrays."""

    def array(func: object, args: object, state: object, *rest: object) -> object:
        """An array that is made by a call of ``func`` and then given its state."""
        handler = pickled.handlers.get((func.module, func.name)) if isinstance(func, Global) else None
        if handler is None or not isinstance(args, tuple):
            return CallRecord(func, (args, state, *rest))
        result = handler(*args)
        if isinstance(result, PickledArray):
            result.build(state)
        return result

    def named_tuple(name: object, fields: object, *_: object) -> ClassStub:
        """A class of named tuples; each of them is a mapping of its fields."""
        if not isinstance(fields, tuple | list) or not all(isinstance(f, str) for f in fields):
            raise Malformed(f"the fields of the named tuple {name} are not names")
        pickled.charge(len(fields))
        names = [checked_key(f) for f in fields]

        def instantiate(*values: object) -> dict[str, Any]:
            if len(values) != len(names):
                raise Malformed(f"a named tuple of {len(names)} fields holds {len(values)} values")
            pickled.charge(len(names))
            return dict(zip(names, values, strict=True))

        return ClassStub(instantiate)

    return {
        **pickled.handlers,
        ("dill._dill", "_create_namedtuple"): named_tuple,
        ("dill._dill", "_create_array"): array,
        ("dill._dill", "_import_module"): lambda name, *_: _Module(name),
        ("dill._dill", "_get_attr"): _attribute,
        ("jax._src.array", "_reconstruct_array"): array,
        ("jax._src.device_array", "reconstruct_device_array"): array,
        ("haiku._src.data_structures", "FlatMapping"): _mapping,
        ("haiku._src.data_structures", "frozendict"): _mapping,
    }


class _Module:
    """A module that the pickle would import. It is not imported."""

    def __init__(self, name: object) -> None:
        self.name = name


def _attribute(owner: object, name: object, *_: object) -> object:
    """A module's attribute: the record of its name."""
    if isinstance(owner, _Module) and isinstance(owner.name, str) and isinstance(name, str):
        return Global(owner.name, name)
    return CallRecord(Global("dill._dill", "_get_attr"), (owner, name))


def _mapping(content: object = (), *_: object) -> object:
    """The mapping inside."""
    if not isinstance(content, dict) and content != ():
        raise Malformed("a FlatMapping of haiku is not a mapping")
    return content or {}
