"""What a pickle's globals, calls and long texts become: records of a name, of a call, and of bytes in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ckptconv.errors import UnreadableError
from ckptconv.sources.file import Source

_MAX_KEY_LENGTH = 1 << 12
_MAX_TUPLE_KEY_LENGTH = 16
_MAX_AXES = 64
MAX_LENGTH = 1 << 62


class Global:
    """A name that the pickle would import. It is not imported."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    @property
    def kind(self) -> str:
        return f"{self.module}.{self.name}"


class CallRecord:
    """A call that the pickle would make. It is not made; what the pickle then puts into the result is kept.

    ``items`` would be appended to it, ``pairs`` set in it under keys; ``state`` would be its attributes, and is a list
    if the pickle sets them more than once.
    """

    __slots__ = ("args", "func", "items", "pairs", "state")

    def __init__(self, func: object, args: object, state: object = None) -> None:
        self.func, self.args, self.state = func, args, state
        self.items: list[object] = []
        self.pairs: dict[Any, Any] | None = None

    @property
    def kind(self) -> str:
        return self.func.kind if isinstance(self.func, Global) else "object"


class OrderedItems(dict[Any, Any]):
    """An ordered dict; ``state`` are its attributes, such as a state dict's `_metadata`."""

    __slots__ = ("state",)

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(pairs)
        self.state: object = None


class Blob:
    """A long text that stays in the file: its offset and length there.

    ``kind`` is the type that unpickling would give, 'bytes' or 'str'. ``text`` tells that the file has UTF-8: of a str,
    or of bytes that protocol 2 writes as text by Latin-1.
    """

    __slots__ = ("kind", "length", "offset", "text")

    def __init__(self, offset: int, length: int, kind: str = "bytes", text: bool = False) -> None:
        self.offset, self.length, self.kind, self.text = offset, length, kind, text

    def read(self, source: Source) -> str | bytes:
        """The text or bytes. Raises UnreadableError if the file has no valid text there."""
        data = source.read(self.offset, self.length)
        if not self.text:
            return data
        try:
            text = data.decode("utf-8", "surrogatepass")
            return text if self.kind == "str" else text.encode("latin-1")
        except UnicodeError:
            raise UnreadableError(
                f"{source.path}: the {self.length:,} bytes at {self.offset:,} are not valid text",
                "The file is damaged or malicious. Download it again from its source.",
            ) from None


class ClassStub:
    """A class that the pickle would create. It is not created: ``instantiate`` is called for a call of it."""

    __slots__ = ("instantiate",)

    def __init__(self, instantiate: Handler) -> None:
        self.instantiate = instantiate


class Malformed(Exception):
    """A pickle does something that its writer never does: raised by opcodes and handlers."""


Handler = Callable[..., object]


def checked_key(value: Any) -> Any:
    """A dict's key, if hashing it is cheap: deep tuples would overflow the interpreter's stack."""
    if isinstance(value, tuple):
        costly = len(value) > _MAX_TUPLE_KEY_LENGTH or any(isinstance(v, tuple) for v in value)
    elif isinstance(value, str | bytes):
        costly = len(value) > _MAX_KEY_LENGTH
    elif isinstance(value, Blob):
        costly = value.kind == "str"
    else:
        costly = isinstance(value, int) and value.bit_length() > 64
    if costly:
        kind = "str" if isinstance(value, Blob) else type(value).__name__
        raise Malformed(f"a dict has a {kind} as its key that no program writes")
    return value


def parse_lengths(value: object) -> tuple[int, ...]:
    if (
        not isinstance(value, tuple | list)
        or len(value) > _MAX_AXES
        or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < MAX_LENGTH for n in value)
    ):
        raise Malformed("a shape or stride is not a list of lengths")
    return tuple(value)


def describe_type(value: object) -> str:
    """The type of a value, in words, for messages."""
    kind = getattr(value, "kind", None)
    return f"a {kind if isinstance(kind, str) else _NAMES.get(type(value).__name__, type(value).__name__)}"


_NAMES = {"StoredTensor": "tensor", "StorageRef": "storage", "ClassStub": "class", "NumpyType": "numpy type"}
