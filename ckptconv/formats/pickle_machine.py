"""The machine that a pickle is a program for: a stack, a memo, and records instead of globals and calls.

Nothing is imported; no function or class that the file names is ever looked up. Functions of ckptconv's own, which the
caller gives, handle the few names that describe tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptconv.formats.buffered import BufferedReader
from ckptconv.formats.records import (
    Blob,
    CallRecord,
    ClassStub,
    Global,
    Handler,
    Malformed,
    OrderedItems,
    checked_key,
    describe_type,
)

MARK = object()
_MAX_GLOBALS = 10_000
_MAX_TEXT = 1 << 30
_MAX_INT_BYTES = 1 << 10
_LONG = 1 << 12  # bytes; longer texts stay in the file


class PickleMachine:
    """The state that opcodes work on. `stack` and `memo` are of one pickle, everything else of all pickles of a file.

    ``handlers`` maps (module, name) to a function that is called for a call of that name; ``persistent`` is called
    for what the pickle refers to by an id. Anything else becomes a `Global`, `CallRecord` or `Blob`.
    """

    def __init__(
        self,
        stream: BufferedReader,
        handlers: Mapping[tuple[str, str], Handler],
        persistent: Handler | None,
    ) -> None:
        self._stream, self._handlers, self._persistent = stream, handlers, persistent
        self._globals: dict[tuple[str, str], Global] = {}
        self.named: dict[str, None] = {}
        self.called: dict[str, None] = {}
        self.digits = 0
        self.begin()

    def begin(self) -> None:
        """Start a new pickle."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop_mark(self) -> list[Any]:
        """Remove everything above the topmost mark from the stack, and return it."""
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise Malformed("a mark is missing")
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def push(self, value: object) -> None:
        self.stack.append(value)

    def find_global(self, module: object, name: object) -> Global:
        """The record of a name; nothing is imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a global's name is not text")
        record = self._globals.get((module, name))
        if record is None:
            if len(self._globals) == _MAX_GLOBALS:
                raise Malformed(f"it names more than {_MAX_GLOBALS:,} things")
            record = self._globals[module, name] = Global(module, name)
            self.named[record.kind] = None
        return record

    def call(self, func: object, args: object) -> object:
        """The record of a call, or what the handler of that name returns; nothing of the file is called."""
        if isinstance(func, Global) and isinstance(args, tuple):
            handler = self._handlers.get((func.module, func.name))
            if handler is not None:
                return handler(*args)
            self.called[func.kind] = None
        elif isinstance(func, ClassStub) and isinstance(args, tuple):
            return func.instantiate(*args)
        return CallRecord(func, args)

    def refer(self, pid: object) -> object:
        if self._persistent is None:
            raise Malformed("it refers to something outside itself")
        return self._persistent(pid)

    def set_items(self, holder: Any, items: list[Any]) -> None:
        if isinstance(holder, CallRecord):
            holder.pairs = holder = {} if holder.pairs is None else holder.pairs
        if not isinstance(holder, dict):
            raise Malformed(f"it sets items in {describe_type(holder)}")
        for i in range(0, len(items), 2):
            holder[checked_key(items[i])] = items[i + 1]

    def extend(self, holder: Any, items: list[Any]) -> None:
        if isinstance(holder, CallRecord):
            holder = holder.items
        if not isinstance(holder, list):
            raise Malformed(f"it appends to {describe_type(holder)}")
        holder.extend(items)

    def build(self) -> None:
        """BUILD: give the object below the topmost value its attributes."""
        state = self.stack.pop()
        holder = self.stack[-1]
        build = getattr(holder, "build", None)
        if isinstance(holder, CallRecord | OrderedItems):
            holder.state = state if holder.state is None else [holder.state, state]
        elif build is not None:
            build(state)
        else:
            raise Malformed(f"it gives attributes to {describe_type(holder)}")

    def push_text(self, length: int) -> None:
        if length > _MAX_TEXT:
            raise Malformed(f"a text of {length:,} bytes")
        if length > _LONG:
            blob = self._stream.skip(length)
            self.push(Blob(blob.offset, blob.length, "str", text=True))
        else:
            self.push(self._stream.take(length).decode("utf-8", "surrogatepass"))

    def push_bytes_text(self, length: int) -> None:
        """Python 2's str: a name if it is short, an array's bytes if it is long."""
        if length < 0:
            raise Malformed(f"a text of {length} bytes")
        self.push(self._stream.skip(length) if length > _LONG else self._stream.take(length).decode("latin-1"))

    def push_integer(self, length: int) -> None:
        if not 0 <= length <= _MAX_INT_BYTES:
            raise Malformed(f"an integer of {length} bytes")
        self.push(int.from_bytes(self._stream.take(length), "little", signed=True))
