"""What the things in a pickle become here: names, calls that are not made, and bytes that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ckptconv.errors import UnreadableError
from ckptconv.sources.file import Source

_MAX_KEY_LENGTH = 1 << 12
_MAX_TUPLE_KEY_LENGTH = 16


class Global:
    """A name the pickle wants imported. It is not."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    @property
    def kind(self) -> str:
        return f"{self.module}.{self.name}"


class Call:
    """A call the pickle wants made. It is not; what would be put into the result is kept.

    ``items`` are what would be appended to it, ``pairs`` what would be set in it under keys, ``state`` its attributes:
    a list of them where it was given some more than once.
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
    """An ordered dict; ``state`` are the attributes that it was given, such as a state dict's `_metadata`."""

    __slots__ = ("state",)

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(pairs)
        self.state: object = None


class Blob:
    """Something long that stays in the file: where it is, how many bytes it takes there, and what they are.

    ``kind`` is what a pickle would give, 'bytes' or 'str'. ``text`` says that they are UTF-8: of a text, or of bytes
    that Latin-1 made a text, as protocol 2 writes them.
    """

    __slots__ = ("kind", "length", "offset", "text")

    def __init__(self, offset: int, length: int, kind: str = "bytes", text: bool = False) -> None:
        self.offset, self.length, self.kind, self.text = offset, length, kind, text

    def read(self, source: Source) -> str | bytes:
        """What it is. Raises UnreadableError where its bytes are no such text."""
        data = source.read(self.offset, self.length)
        if not self.text:
            return data
        try:
            text = data.decode("utf-8", "surrogatepass")
            return text if self.kind == "str" else text.encode("latin-1")
        except UnicodeError:
            raise UnreadableError(
                f"{source.path}: the {self.length:,} bytes at {self.offset:,} are not the text they are said to be",
                "The file is damaged or was made to mislead; get it again from its source.",
            ) from None


class ClassStub:
    """A class that the pickle makes on its way. It is not made: ``instantiate`` is called for a call of it."""

    __slots__ = ("instantiate",)

    def __init__(self, instantiate: Handler) -> None:
        self.instantiate = instantiate


class Malformed(Exception):
    """What a meaning raises when its arguments are not what the writer would have given."""


Handler = Callable[..., object]


def checked_key(value: Any) -> Any:
    """A dict's key, if it is one that costs little to hash: deep tuples would overflow the interpreter's own stack."""
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


def describe_type(value: object) -> str:
    """What a person calls something that a pickle may not change."""
    kind = getattr(value, "kind", None)
    return f"a {kind if isinstance(kind, str) else _NAMES.get(type(value).__name__, type(value).__name__)}"


_NAMES = {"StoredTensor": "tensor", "StorageRef": "storage", "ClassStub": "class", "NumpyType": "numpy type"}
