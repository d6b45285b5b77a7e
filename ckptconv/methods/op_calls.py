"""An op as a text: the call of the function in `ckptconv.ops` that makes it, such as ``permute(1, 0)``.

The text is parsed as Python's, and never evaluated: it may hold calls of those functions and literals, nothing else.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from ckptconv import ops
from ckptconv.errors import UsageError, shortened

_OPS: Mapping[str, tuple[Callable[..., ops.Op], type[ops.Op]]] = {
    "add_row": (ops.add_row, ops.AddRow),
    "cast": (ops.cast, ops.Cast),
    "chain": (ops.chain, ops.Composed),
    "chunk": (ops.chunk, ops.Chunk),
    "concat": (ops.concat, ops.Concat),
    "concat_with_zeros": (ops.concat_with_zeros, ops.ConcatWithZeros),
    "permute": (ops.permute, ops.Permute),
    "regroup": (ops.regroup, ops.Regroup),
    "reshape": (ops.reshape, ops.Reshape),
    "resize_grid": (ops.resize_grid, ops.ResizeGrid),
    "resize_patch": (ops.resize_patch, ops.ResizePatch),
    "scale": (ops.scale, ops.Scale),
    "select_channels": (ops.select_channels, ops.SelectChannels),
    "take": (ops.take, ops.Take),
    "zeros": (ops.zeros, ops.Zeros),
}
_HINT = (
    "Ops: concat(axis), chunk(axis, index, of), take(axis, start, stop), permute(axis, …), reshape(length, …), "
    "regroup(axis, order, back), scale(), concat_with_zeros(), add_row(row), select_channels(numbers), "
    "cast(from, to), resize_grid(tokens, side, …), resize_patch(side), zeros(), chain(op, op, …)."
)
_LONGEST = 500  # characters
_MOST = 10**9  # a number that no shape has


def parsed(text: str) -> ops.Op:
    """The op that a text calls. Raises UsageError with all ops if there is none."""
    try:
        if len(text) > _LONGEST:
            raise ValueError
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of how the text is written
            tree = ast.parse(text.strip(), mode="eval")
        if any(isinstance(n, ast.Constant) and isinstance(n.value, int) and n.value > _MOST for n in ast.walk(tree)):
            raise ValueError
        op = _value(tree.body)
        if isinstance(op, ops.Op):
            return op
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass
    raise UsageError(f"there is no op '{shortened(text)}'", _HINT)


def _value(node: ast.expr) -> Any:
    """What an expression says: a call of an op, or a literal. Raises ValueError for anything else."""
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    if not isinstance(node.func, ast.Name) or node.func.id not in _OPS:
        raise ValueError
    named = {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
    if len(named) < len(node.keywords):
        raise ValueError
    return _OPS[node.func.id][0](*map(_value, node.args), **named)


def written(op: ops.Op) -> str:
    """The call that makes an op. Raises UsageError for an op of another package, and one that no call makes."""
    name = next((name for name, (_, kind) in _OPS.items() if type(op) is kind), "")
    values: list[object] = [getattr(op, field.name) for field in fields(op)]
    for field in reversed(fields(op)):
        if field.default is MISSING or field.default != values[-1]:
            break
        values.pop()
    if isinstance(op, ops.Composed):
        if parts := _chained(op):
            return f"chain({', '.join(map(written, parts))})"
        name = ""
    if isinstance(op, ops.Cast):
        values = [op.source.name, op.target.name]
    if isinstance(op, ops.Permute | ops.Reshape):
        values = list(op.axes if isinstance(op, ops.Permute) else op.shape)
    if not name:
        raise UsageError(f"the op '{op}' has no name in a rule file", "Write that method in Python.")
    return f"{name}({', '.join(map(repr, values))})"


def _chained(op: ops.Composed) -> list[ops.Op]:
    """The ops of a chain, the first one first; nothing for ops that are composed in another way."""
    (first, *others) = op.inner
    if first is None or others or op.counts != (1,):
        return []
    return [*(_chained(first) if isinstance(first, ops.Composed) else [first]), op.op]
