"""The inert unpickler: reads what a pickle says, and does none of it.

A pickle is a program for a small machine. This module runs that program with every global as a name and every call as
a record of a call. Nothing is imported; no function or class that the file names is ever looked up. The meaning of the
few names that describe tensors is given by the caller, as functions of ckptconv's own.

Opcodes: `Lib/pickletools.py` of CPython, protocols 0 to 5.
"""

from __future__ import annotations

import codecs
import struct
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ckptconv.errors import UnreadableError
from ckptconv.formats.buffered import BufferedReader
from ckptconv.formats.records import (
    Blob,
    Call,
    ClassStub,
    Global,
    Handler,
    Malformed,
    OrderedItems,
    checked_key,
    describe_type,
)
from ckptconv.sources.file import Source

_MAX_INT_BYTES = 1 << 10
_MAX_OPCODES = 1_000_000
_MAX_GLOBALS = 10_000
_MAX_DIGITS = 1_000_000  # of integers written as text, whose cost grows with the square of their length
_MAX_TEXT = 1 << 30
_BIG = 1 << 12
_MARK = object()

Step = Callable[["Unpickler", BufferedReader], None]


class Unpickler:
    """Reads pickles one after another from ``source`` between two offsets.

    ``handlers`` maps (module, name) to a function that is called for a call of that name; ``persistent`` is called
    for what the pickle refers to by an id. Both are ckptconv's own. Anything else becomes a `Global`, `Call` or `Blob`.
    """

    def __init__(
        self,
        source: Source,
        start: int,
        end: int,
        handlers: Mapping[tuple[str, str], Handler],
        persistent: Handler | None = None,
        max_steps: int = _MAX_OPCODES,
    ) -> None:
        self._stream = BufferedReader(source, start, end)
        self._source, self._handlers, self._persistent = source, handlers, persistent
        self.named: dict[str, None] = {}
        self.called: dict[str, None] = {}
        self._digits = 0
        self._globals: dict[tuple[str, str], Global] = {}
        self._most = self._steps = max_steps

    def tell(self) -> int:
        """Where the next pickle starts."""
        return self._stream.tell()

    def load(self) -> Any:
        """The next pickle's object. Raises UnreadableError if it is not sound."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        try:
            return self._run()
        except Malformed as error:
            reason = str(error)
        except (
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            struct.error,
            ArithmeticError,
            RecursionError,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
        raise UnreadableError(
            f"{self._source.path}: its pickle is malformed near byte {self._stream.tell():,} ({reason})",
            "The file is damaged, or it is no checkpoint: get it again from its source.",
        )

    def _run(self) -> Any:
        stream, stack = self._stream, self._stack
        for done in range(1, self._steps + 1):
            at = stream.at
            if at == len(stream.buffer):
                stream.refill(1)
                at = 0
            code = stream.buffer[at]
            stream.at = at + 1
            if code == _STOP:
                self._steps -= done  # one budget for all pickles of a file
                return stack.pop()
            step = _STEPS[code]
            if step is None:
                raise Malformed(f"there is no opcode {bytes([code])!r}")
            step(self, stream)
        raise Malformed(f"it has more than {self._most:,} steps")

    # What the opcodes share -------------------------------------------------------------------------------------

    def _marked(self) -> list[Any]:
        """Take everything above the topmost mark off the stack."""
        stack = self._stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Malformed("a mark is missing")
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _named(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a global's name is no text")
        found = self._globals.get((module, name))
        if found is None:
            if len(self._globals) == _MAX_GLOBALS:
                raise Malformed(f"it names more than {_MAX_GLOBALS:,} things")
            found = self._globals[module, name] = Global(module, name)
            self.named[found.kind] = None
        return found

    def _call(self, func: object, args: object) -> object:
        if isinstance(func, Global) and isinstance(args, tuple):
            handler = self._handlers.get((func.module, func.name))
            if handler is not None:
                return handler(*args)
            self.called[func.kind] = None
        elif isinstance(func, ClassStub) and isinstance(args, tuple):
            return func.instantiate(*args)
        return Call(func, args)

    def _refer(self, pid: object) -> object:
        if self._persistent is None:
            raise Malformed("it refers to something outside itself")
        return self._persistent(pid)

    def _put_items(self, holder: Any, items: list[Any]) -> None:
        if isinstance(holder, Call):
            holder.pairs = holder = {} if holder.pairs is None else holder.pairs
        if not isinstance(holder, dict):
            raise Malformed(f"it sets items in {describe_type(holder)}")
        for i in range(0, len(items), 2):
            holder[checked_key(items[i])] = items[i + 1]

    def _extend(self, holder: Any, items: list[Any]) -> None:
        if isinstance(holder, Call):
            holder = holder.items
        if not isinstance(holder, list):
            raise Malformed(f"it appends to {describe_type(holder)}")
        holder.extend(items)

    def _build(self) -> None:
        state = self._stack.pop()
        holder = self._stack[-1]
        build = getattr(holder, "build", None)
        if isinstance(holder, Call | OrderedItems):
            holder.state = state if holder.state is None else [holder.state, state]
        elif build is not None:
            build(state)
        else:
            raise Malformed(f"it gives attributes to {describe_type(holder)}")

    def _text(self, length: int) -> None:
        if length > _MAX_TEXT:
            raise Malformed(f"a text of {length:,} bytes")
        if length > _BIG:
            blob = self._stream.skip(length)
            self._push(Blob(blob.offset, blob.length, "str", text=True))
        else:
            self._push(self._stream.take(length).decode("utf-8", "surrogatepass"))

    def _old_text(self, length: int) -> None:
        """Python 2's str: names when short, an array's bytes when long."""
        if length < 0:
            raise Malformed(f"a text of {length} bytes")
        self._push(self._stream.skip(length) if length > _BIG else self._stream.take(length).decode("latin-1"))

    def _integer(self, length: int) -> None:
        if not 0 <= length <= _MAX_INT_BYTES:
            raise Malformed(f"an integer of {length} bytes")
        self._push(int.from_bytes(self._stream.take(length), "little", signed=True))


def _int_line(u: Unpickler, text: bytes) -> int | bool:
    u._digits += len(text)
    if u._digits > _MAX_DIGITS:
        raise Malformed(f"its integers have more than {_MAX_DIGITS:,} digits")
    return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text)


def _quoted(line: bytes) -> str:
    """Python 2's str as its repr stood in protocol 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of an escape that Python does not know and leaves alone
        return codecs.escape_decode(line[1:-1])[0].decode("latin-1")


def _inst(u: Unpickler, s: BufferedReader) -> None:
    func = u._named(s.line().decode(), s.line().decode())
    u._push(u._call(func, tuple(u._marked())))


def _obj(u: Unpickler, s: BufferedReader) -> None:
    func, *args = u._marked()
    u._push(u._call(func, tuple(args)))


def _reduce(u: Unpickler, s: BufferedReader) -> None:
    args = u._stack.pop()
    u._stack[-1] = u._call(u._stack[-1], args)


def _newobj_ex(u: Unpickler, s: BufferedReader) -> None:
    named, args = u._stack.pop(), u._stack.pop()
    made = u._call(u._stack[-1], args)
    if named and not isinstance(made, Call):
        raise Malformed(f"it makes {describe_type(made)} with named arguments")
    u._stack[-1] = Call(made.func, (made.args, named)) if named and isinstance(made, Call) else made


def _stack_global(u: Unpickler, s: BufferedReader) -> None:
    name = u._stack.pop()
    u._stack[-1] = u._named(u._stack[-1], name)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {checked_key(items[i]): items[i + 1] for i in range(0, len(items), 2)}


def _pop(u: Unpickler, s: BufferedReader) -> None:
    u._stack.pop()


def _pop_mark(u: Unpickler, s: BufferedReader) -> None:
    u._marked()


def _setitem(u: Unpickler, s: BufferedReader) -> None:
    value, key = u._stack.pop(), u._stack.pop()
    u._put_items(u._stack[-1], [key, value])


def _setitems(u: Unpickler, s: BufferedReader) -> None:
    items = u._marked()
    u._put_items(u._stack[-1], items)


def _append(u: Unpickler, s: BufferedReader) -> None:
    value = u._stack.pop()
    u._extend(u._stack[-1], [value])


def _appends(u: Unpickler, s: BufferedReader) -> None:
    items = u._marked()
    u._extend(u._stack[-1], items)


def _tuple(count: int) -> Step:
    def step(u: Unpickler, s: BufferedReader) -> None:
        items = tuple(u._stack[-count:])
        if len(items) < count:
            raise Malformed("the stack is empty")
        u._stack[-count:] = [items]

    return step


def _memoize(u: Unpickler, s: BufferedReader) -> None:
    u._memo[len(u._memo)] = u._stack[-1]


def _long_put(u: Unpickler, s: BufferedReader) -> None:
    u._memo[int.from_bytes(s.take(4), "little")] = u._stack[-1]


def _put(read: Callable[[BufferedReader], int]) -> Step:
    def step(u: Unpickler, s: BufferedReader) -> None:
        u._memo[read(s)] = u._stack[-1]

    return step


def _get(read: Callable[[BufferedReader], int]) -> Step:
    def step(u: Unpickler, s: BufferedReader) -> None:
        u._stack.append(u._memo[read(s)])

    return step


def _skip(count: int) -> Step:
    def step(u: Unpickler, s: BufferedReader) -> None:
        s.take(count)

    return step


def _refused(why: str) -> Step:
    def step(u: Unpickler, s: BufferedReader) -> None:
        raise Malformed(why)

    return step


def _u(size: int) -> Callable[[BufferedReader], int]:
    """Read an unsigned little-endian integer."""

    def read(s: BufferedReader) -> int:
        return int.from_bytes(s.take(size), "little")

    return read


def _i4(s: BufferedReader) -> int:
    return int.from_bytes(s.take(4), "little", signed=True)


_u1, _u2, _u4, _u8 = _u(1), _u(2), _u(4), _u(8)

_STOP = ord(".")
_DISPATCH: Mapping[bytes, Step] = {
    b"\x80": _skip(1),  # PROTO
    b"\x95": _skip(8),  # FRAME
    b"(": lambda u, s: u._push(_MARK),
    b"0": _pop,
    b"1": _pop_mark,
    b"2": lambda u, s: u._push(u._stack[-1]),  # DUP
    # constants
    b"N": lambda u, s: u._push(None),
    b"\x88": lambda u, s: u._push(True),
    b"\x89": lambda u, s: u._push(False),
    b"K": lambda u, s: u._push(_u1(s)),
    b"M": lambda u, s: u._push(_u2(s)),
    b"J": lambda u, s: u._push(_i4(s)),
    b"I": lambda u, s: u._push(_int_line(u, s.line())),
    b"L": lambda u, s: u._push(int(_int_line(u, s.line().rstrip(b"L")))),
    b"\x8a": lambda u, s: u._integer(_u1(s)),
    b"\x8b": lambda u, s: u._integer(_i4(s)),
    b"F": lambda u, s: u._push(float(s.line())),
    b"G": lambda u, s: u._push(struct.unpack(">d", s.take(8))[0]),
    # text and bytes
    b"X": lambda u, s: u._text(_u4(s)),
    b"\x8c": lambda u, s: u._text(_u1(s)),
    b"\x8d": lambda u, s: u._text(_u8(s)),
    b"V": lambda u, s: u._push(s.line().decode("raw-unicode-escape")),
    b"S": lambda u, s: u._push(_quoted(s.line())),
    b"U": lambda u, s: u._old_text(_u1(s)),
    b"T": lambda u, s: u._old_text(_i4(s)),
    b"C": lambda u, s: u._push(s.skip(_u1(s))),
    b"B": lambda u, s: u._push(s.skip(_u4(s))),
    b"\x8e": lambda u, s: u._push(s.skip(_u8(s))),
    b"\x96": lambda u, s: u._push(s.skip(_u8(s))),
    # containers; sets are kept as lists, for nothing in them is ever looked up
    b"]": lambda u, s: u._push([]),
    b"l": lambda u, s: u._push(u._marked()),
    b"}": lambda u, s: u._push({}),
    b"d": lambda u, s: u._push(_pairs(u._marked())),
    b"\x8f": lambda u, s: u._push([]),
    b"\x91": lambda u, s: u._push(u._marked()),
    b")": lambda u, s: u._push(()),
    b"t": lambda u, s: u._push(tuple(u._marked())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"s": _setitem,
    b"u": _setitems,
    b"a": _append,
    b"e": _appends,
    b"\x90": _appends,
    # memo
    b"p": _put(lambda s: int(s.line())),
    b"q": _put(_u1),
    b"r": _long_put,  # half of all opcodes that torch writes
    b"\x94": _memoize,
    b"g": _get(lambda s: int(s.line())),
    b"h": _get(_u1),
    b"j": _get(_u4),
    # names and calls
    b"c": lambda u, s: u._push(u._named(s.line().decode(), s.line().decode())),
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _reduce,
    b"\x92": _newobj_ex,
    b"i": _inst,
    b"o": _obj,
    b"b": lambda u, s: u._build(),
    b"P": lambda u, s: u._push(u._refer(s.line().decode())),
    b"Q": lambda u, s: u._push(u._refer(u._stack.pop())),
    b"\x82": _refused("it uses the copyreg extension registry"),
    b"\x83": _refused("it uses the copyreg extension registry"),
    b"\x84": _refused("it uses the copyreg extension registry"),
    b"\x97": _refused("it uses out-of-band buffers"),
    b"\x98": _refused("it uses out-of-band buffers"),
}
_STEPS: tuple[Step | None, ...] = tuple(_DISPATCH.get(bytes([code])) for code in range(256))
