"""The opcodes of pickles, protocols 0 to 5: what each one does to the machine.

Source: `Lib/pickletools.py` of CPython.
"""

from __future__ import annotations

import codecs
import struct
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ckptconv.formats.buffered import BufferedReader
from ckptconv.formats.pickle_machine import MARK, PickleMachine
from ckptconv.formats.records import CallRecord, Malformed, checked_key, describe_type

Step = Callable[[PickleMachine, BufferedReader], None]

_MAX_DIGITS = 1_000_000  # of integers written as text, whose cost grows with the square of their length


def _int_line(m: PickleMachine, text: bytes) -> int | bool:
    m.digits += len(text)
    if m.digits > _MAX_DIGITS:
        raise Malformed(f"its integers have more than {_MAX_DIGITS:,} digits")
    return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text)


def _quoted(line: bytes) -> str:
    """Python 2's str, which protocol 0 writes as its repr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of an unknown escape, which Python keeps as it is
        return codecs.escape_decode(line[1:-1])[0].decode("latin-1")


def _inst(m: PickleMachine, s: BufferedReader) -> None:
    func = m.find_global(s.line().decode(), s.line().decode())
    m.push(m.call(func, tuple(m.pop_mark())))


def _obj(m: PickleMachine, s: BufferedReader) -> None:
    func, *args = m.pop_mark()
    m.push(m.call(func, tuple(args)))


def _reduce(m: PickleMachine, s: BufferedReader) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.call(m.stack[-1], args)


def _newobj_ex(m: PickleMachine, s: BufferedReader) -> None:
    named, args = m.stack.pop(), m.stack.pop()
    made = m.call(m.stack[-1], args)
    if named and not isinstance(made, CallRecord):
        raise Malformed(f"it makes {describe_type(made)} with named arguments")
    m.stack[-1] = CallRecord(made.func, (made.args, named)) if named and isinstance(made, CallRecord) else made


def _stack_global(m: PickleMachine, s: BufferedReader) -> None:
    name = m.stack.pop()
    m.stack[-1] = m.find_global(m.stack[-1], name)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {checked_key(items[i]): items[i + 1] for i in range(0, len(items), 2)}


def _pop(m: PickleMachine, s: BufferedReader) -> None:
    m.stack.pop()


def _pop_mark(m: PickleMachine, s: BufferedReader) -> None:
    m.pop_mark()


def _setitem(m: PickleMachine, s: BufferedReader) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items(m.stack[-1], [key, value])


def _setitems(m: PickleMachine, s: BufferedReader) -> None:
    items = m.pop_mark()
    m.set_items(m.stack[-1], items)


def _append(m: PickleMachine, s: BufferedReader) -> None:
    value = m.stack.pop()
    m.extend(m.stack[-1], [value])


def _appends(m: PickleMachine, s: BufferedReader) -> None:
    items = m.pop_mark()
    m.extend(m.stack[-1], items)


def _tuple(count: int) -> Step:
    def step(m: PickleMachine, s: BufferedReader) -> None:
        items = tuple(m.stack[-count:])
        if len(items) < count:
            raise Malformed("the stack is empty")
        m.stack[-count:] = [items]

    return step


def _memoize(m: PickleMachine, s: BufferedReader) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _long_put(m: PickleMachine, s: BufferedReader) -> None:
    m.memo[int.from_bytes(s.take(4), "little")] = m.stack[-1]


def _put(read: Callable[[BufferedReader], int]) -> Step:
    def step(m: PickleMachine, s: BufferedReader) -> None:
        m.memo[read(s)] = m.stack[-1]

    return step


def _get(read: Callable[[BufferedReader], int]) -> Step:
    def step(m: PickleMachine, s: BufferedReader) -> None:
        m.stack.append(m.memo[read(s)])

    return step


def _skip(count: int) -> Step:
    def step(m: PickleMachine, s: BufferedReader) -> None:
        s.take(count)

    return step


def _refused(why: str) -> Step:
    def step(m: PickleMachine, s: BufferedReader) -> None:
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

STOP = ord(".")
OPCODES: Mapping[bytes, Step] = {
    b"\x80": _skip(1),  # PROTO
    b"\x95": _skip(8),  # FRAME
    b"(": lambda m, s: m.push(MARK),
    b"0": _pop,
    b"1": _pop_mark,
    b"2": lambda m, s: m.push(m.stack[-1]),  # DUP
    # constants
    b"N": lambda m, s: m.push(None),
    b"\x88": lambda m, s: m.push(True),
    b"\x89": lambda m, s: m.push(False),
    b"K": lambda m, s: m.push(_u1(s)),
    b"M": lambda m, s: m.push(_u2(s)),
    b"J": lambda m, s: m.push(_i4(s)),
    b"I": lambda m, s: m.push(_int_line(m, s.line())),
    b"L": lambda m, s: m.push(int(_int_line(m, s.line().rstrip(b"L")))),
    b"\x8a": lambda m, s: m.push_integer(_u1(s)),
    b"\x8b": lambda m, s: m.push_integer(_i4(s)),
    b"F": lambda m, s: m.push(float(s.line())),
    b"G": lambda m, s: m.push(struct.unpack(">d", s.take(8))[0]),
    # text and bytes
    b"X": lambda m, s: m.push_text(_u4(s)),
    b"\x8c": lambda m, s: m.push_text(_u1(s)),
    b"\x8d": lambda m, s: m.push_text(_u8(s)),
    b"V": lambda m, s: m.push(s.line().decode("raw-unicode-escape")),
    b"S": lambda m, s: m.push(_quoted(s.line())),
    b"U": lambda m, s: m.push_bytes_text(_u1(s)),
    b"T": lambda m, s: m.push_bytes_text(_i4(s)),
    b"C": lambda m, s: m.push(s.skip(_u1(s))),
    b"B": lambda m, s: m.push(s.skip(_u4(s))),
    b"\x8e": lambda m, s: m.push(s.skip(_u8(s))),
    b"\x96": lambda m, s: m.push(s.skip(_u8(s))),
    # containers; sets are kept as lists, for nothing in them is ever looked up
    b"]": lambda m, s: m.push([]),
    b"l": lambda m, s: m.push(m.pop_mark()),
    b"}": lambda m, s: m.push({}),
    b"d": lambda m, s: m.push(_pairs(m.pop_mark())),
    b"\x8f": lambda m, s: m.push([]),
    b"\x91": lambda m, s: m.push(m.pop_mark()),
    b")": lambda m, s: m.push(()),
    b"t": lambda m, s: m.push(tuple(m.pop_mark())),
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
    b"c": lambda m, s: m.push(m.find_global(s.line().decode(), s.line().decode())),
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _reduce,
    b"\x92": _newobj_ex,
    b"i": _inst,
    b"o": _obj,
    b"b": lambda m, s: m.build(),
    b"P": lambda m, s: m.push(m.refer(s.line().decode())),
    b"Q": lambda m, s: m.push(m.refer(m.stack.pop())),
    b"\x82": _refused("it uses the copyreg extension registry"),
    b"\x83": _refused("it uses the copyreg extension registry"),
    b"\x84": _refused("it uses the copyreg extension registry"),
    b"\x97": _refused("it uses out-of-band buffers"),
    b"\x98": _refused("it uses out-of-band buffers"),
}
STEPS: tuple[Step | None, ...] = tuple(OPCODES.get(bytes([code])) for code in range(256))
