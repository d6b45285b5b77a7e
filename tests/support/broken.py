"""Broken and hostile files, each built from scratch, with what ckptconv must say about it.

A row differs from a sound file by its flaw alone: `SOUND` lists files that convert, and many rows are one of them
with one thing changed. Pickles are made of opcodes (`Lib/pickletools.py`), archives of headers (PKWARE's APPNOTE).
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ckptconv.backbones.resnet import ResNet

# Pickles, from opcodes -----------------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def bundle(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def listing(*values: bytes) -> bytes:
    return b"](" + b"".join(values) + b"e"


def table(items: Mapping[str, bytes] | Iterable[tuple[bytes, bytes]]) -> bytes:
    pairs = [(text(k), v) for k, v in items.items()] if isinstance(items, Mapping) else items
    return b"}(" + b"".join(k + v for k, v in pairs) + b"u"


def call(module: str, function: str, *args: bytes) -> bytes:
    return name(module, function) + bundle(*args) + b"R"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def storage(key: str, length: int, part_of: str | None = None) -> bytes:
    described = [text("storage"), name("torch", "FloatStorage"), text(key), text("cpu"), integer(length)]
    if part_of is not None:
        described.append(bundle(text(part_of), integer(0), integer(length)))
    return bundle(*described) + b"Q"


def view(of: bytes, shape: Iterable[int], strides: Iterable[int], offset: int = 0) -> bytes:
    lengths = [bundle(*map(integer, run)) for run in (shape, strides)]
    return call("torch._utils", "_rebuild_tensor_v2", of, integer(offset), *lengths, b"\x89", b"}")


def tensor(key: str, shape: tuple[int, ...]) -> bytes:
    """A contiguous view of the whole of a storage of float32."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return view(storage(key, step), shape, reversed(strides))


def one_view(shape: Iterable[int], strides: Iterable[int], offset: int = 0, length: int = 4) -> bytes:
    return table({"w": view(storage("0", length), shape, strides, offset)})


FOUR = tensor("0", (4,))
"""Four numbers; `zipped` and `legacy` put the storage '0' of 16 bytes beside whatever pickle they are given."""

# A network small enough to build for every row, and complete enough to be converted -----------------------------------

SHAPES = {
    key: shape
    for key, shape in ResNet((2, 2, 2, 2), False, 2, 2, 2, 1, 7, 3).entries().items()
    if not key.endswith("tracked")
}


def numbers(shape: tuple[int, ...]) -> bytes:
    count = 1
    for length in shape:
        count *= length
    return struct.pack(f"<{count}f", *range(count))


def weights() -> dict[str, bytes]:
    return {key: tensor(str(i), shape) for i, (key, shape) in enumerate(SHAPES.items())}


def storages() -> dict[str, bytes]:
    return {str(i): numbers(shape) for i, shape in enumerate(SHAPES.values())}


# Zip archives --------------------------------------------------------------------------------------------------------

_LOCAL, _ENTRY, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")

Headers = dict[str, Any]


@dataclass
class Record:
    """A record, and in what its two headers differ from the truth."""

    name: str
    data: bytes
    local: Headers = field(default_factory=dict)
    central: Headers = field(default_factory=dict)


def archive(records: Iterable[Record], before: bytes = b"", announced: int | None = None) -> bytes:
    body, directory, count = bytearray(before), bytearray(), 0
    for record in records:
        size = len(record.data)
        truth: Headers = {"name": record.name.encode(), "flags": 0, "method": 0, "crc": zlib.crc32(record.data)}
        truth |= {"packed": size, "size": size, "header": len(body)}
        t = truth | record.local
        body += _LOCAL.pack(
            b"PK\3\4", 0, t["flags"], t["method"], 0, 0, t["crc"], t["packed"], t["size"], len(t["name"]), 0
        )
        body += t["name"] + record.data
        t = truth | record.central
        sizes = (t["crc"], t["packed"], t["size"], len(t["name"]))
        directory += _ENTRY.pack(b"PK\1\2", 0, 0, t["flags"], t["method"], 0, 0, *sizes, 0, 0, 0, 0, 0, t["header"])
        directory += t["name"]
        count += 1
    count = count if announced is None else announced
    return bytes(body + directory + _END.pack(b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0))


def zipped(body: bytes, records: Mapping[str, bytes] | None = None) -> bytes:
    found = [Record("archive/data.pkl", pickled(body)), Record("archive/byteorder", b"little")]
    found += [Record(f"archive/data/{key}", data) for key, data in (records or {"0": numbers((4,))}).items()]
    return archive(found)


def network_zip(
    changed: str = "",
    data: bytes | None = None,
    local: Headers | None = None,
    central: Headers | None = None,
) -> bytes:
    """A complete checkpoint, with one record ('data.pkl', 'data/0', …) or what is said of it changed."""
    files = {"data.pkl": pickled(table(weights())), "byteorder": b"little"}
    files |= {f"data/{key}": found for key, found in storages().items()}
    records = [Record(f"archive/{key}", found) for key, found in files.items()]
    for record in records:
        if record.name == f"archive/{changed}":
            record.data = record.data if data is None else data
            record.local, record.central = local or {}, central or {}
    return archive(records)


def flipped(content: bytes, behind: bytes, distance: int) -> bytes:
    """The content with one bit of another value, a distance after the first place where ``behind`` stands."""
    at = content.index(behind) + len(behind) + distance
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


def padded() -> bytes:
    """A complete checkpoint whose first storage is longer than the view on it, so that it is not read in one go."""
    first, shape = next(iter(SHAPES.items()))
    count = len(numbers(shape)) // 4 + 9
    strides = (shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1)
    body = table(weights() | {first: view(storage("0", count), shape, strides, 4)})
    return zipped(body, storages() | {"0": numbers((count,))})


def compressed(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", pickled(table({"w": FOUR})))
        packed.writestr("archive/data/0", data)
    return file.getvalue()


def other_zip(*names: str) -> bytes:
    return archive(Record(name, b"<w:document/>") for name in names)


def crowded_zip() -> bytes:
    """A directory of 60 MB: more than a million records without a name."""
    entry = _ENTRY.pack(b"PK\1\2", *[0] * 16)
    count = (60 << 20) // len(entry)
    head, size = _LOCAL.pack(b"PK\3\4", *[0] * 10), count * len(entry)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, len(head))
    wide += struct.pack("<4sLQL", b"PK\6\7", 0, len(head) + size, 1)
    return head + entry * count + wide + _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, len(head), 0)


def lying_zip64() -> bytes:
    sound = network_zip()
    _, _, _, count, _, size, start, _ = _END.unpack(sound[-_END.size :])
    at = len(sound) - _END.size
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count - 1, count - 1, size, start)
    return sound[:at] + wide + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1) + sound[at:]


# Files of torch itself, to cut at the boundaries of a real structure --------------------------------------------------


@cache
def saved(legacy: bool = False) -> bytes:
    import torch

    file = io.BytesIO()
    state = {"first": torch.arange(50.0), "second": torch.arange(60.0)}
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def zip_cuts() -> dict[str, Callable[[], bytes]]:
    def cut(where: Callable[[dict[str, int]], int]) -> Callable[[], bytes]:
        def make() -> bytes:
            content = saved()
            with zipfile.ZipFile(io.BytesIO(content)) as found:
                places = {"end": len(content) - _END.size, "directory": found.start_dir}
                for info in found.infolist():
                    places[info.filename.partition("/")[2]] = info.header_offset
            return content[: where(places)]

        return make

    return {
        "in the first local header": cut(lambda at: 20),
        "in data.pkl": cut(lambda at: at["data.pkl"] + 90),
        "in a storage": cut(lambda at: at["data/1"] + 150),
        "before the directory": cut(lambda at: at["directory"]),
        "in the directory": cut(lambda at: (at["directory"] + at["end"]) // 2),
        "before the end record": cut(lambda at: at["end"]),
        "in the end record": cut(lambda at: at["end"] + 10),
        "before the last byte": cut(lambda at: at["end"] + _END.size - 1),
    }


def legacy_cuts() -> dict[str, Callable[[], bytes]]:
    def cut(where: Callable[[list[int]], int]) -> Callable[[], bytes]:
        def make() -> bytes:
            file = io.BytesIO(saved(legacy=True))
            ends = [0]
            for _ in range(5):
                for _ in pickletools.genops(file):
                    pass
                ends.append(file.tell())
            return file.getvalue()[: where(ends)]

        return make

    def middle(number: int) -> Callable[[list[int]], int]:
        return lambda ends: (ends[number - 1] + ends[number]) // 2

    cuts = {f"in pickle {i}": cut(middle(i)) for i in range(1, 6)}
    return cuts | {
        "before the third pickle": cut(lambda ends: ends[2]),
        "before the storages": cut(lambda ends: ends[5]),
        "in a storage's count": cut(lambda ends: ends[5] + 5),
        "in the first storage": cut(lambda ends: ends[5] + 8 + 100),
        "between the storages": cut(lambda ends: ends[5] + 8 + 4 * 50),
        "in the last storage": cut(lambda ends: -100),
        "before the last byte": cut(lambda ends: -1),
    }


# Legacy files --------------------------------------------------------------------------------------------------------

_MAGIC = pickled(integer(0x1950A86A20F9469CFC6C))
_SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, 2)


def legacy(
    body: bytes, keys: Iterable[object] = ("0",), counts: Iterable[int] = (4,), protocol: bytes = integer(1001)
) -> bytes:
    end = b"".join(struct.pack("<q", count) + bytes(4 * count) for count in counts)
    return _MAGIC + pickled(protocol) + _SYSTEM + pickled(body) + pickle.dumps(list(keys), 2) + end


def network_legacy() -> bytes:
    head = _MAGIC + pickled(integer(1001)) + _SYSTEM + pickled(table(weights())) + pickle.dumps(list(storages()), 2)
    return head + b"".join(struct.pack("<q", len(data) // 4) + data for data in storages().values())


# safetensors ---------------------------------------------------------------------------------------------------------

Entry = dict[str, object]


def entry(begin: int = 0, end: int = 4, shape: object = (1,), dtype: object = "F32") -> Entry:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors(header: object, data: bytes = b"abcd", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def network_safetensors(header_length: int | None = None) -> bytes:
    header, data = {}, b""
    for key, shape in SHAPES.items():
        found = numbers(shape)
        header[key] = entry(len(data), len(data) + len(found), shape)
        data += found
    raw = json.dumps(header).encode()
    return safetensors(raw + b" " * ((header_length or len(raw)) - len(raw)), data)


# Numpy pickles and other files ---------------------------------------------------------------------------------------


def network_numpy() -> bytes:
    import numpy as np

    return pickle.dumps({key: np.frombuffer(numbers(s), "<f4").reshape(s) for key, s in SHAPES.items()}, 4)


def numpy_file(save: str, value: object) -> bytes:
    import numpy as np

    file = io.BytesIO()
    getattr(np, save)(file, value)
    return file.getvalue()


ARRAY = call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), bundle(integer(0)), text("b"))
"""An empty numpy array."""


def array_state(data: bytes, length: int | None = None) -> bytes:
    """What makes `ARRAY` bytes of ``data``, as protocol 2 writes them."""
    kind = call("numpy", "dtype", text("u1"), integer(0), integer(1))
    return bundle(integer(1), bundle(integer(len(data) if length is None else length)), kind, b"\x89", text(data))


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as found:
        found.addfile(tarfile.TarInfo("model.pth"), io.BytesIO())
    return file.getvalue()


def torchscript() -> bytes:
    import torch

    class Net(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript; files of it stay
        torch.jit.save(torch.jit.trace(Net(), torch.zeros(1, 2)), file)
    return file.getvalue()


# Bombs: small files that ask for much memory or time ------------------------------------------------------------------

DEEP = b")" + b"\x85" * 100_000
"""A tuple in a tuple in a tuple …"""


def laughs(levels: int, bottom: bytes = b"}", names: tuple[str, str] = ("a", "b")) -> bytes:
    """Dicts that hold the next one twice: 2 ** levels ways lead to the bottom."""
    keys = text(names[0]) + b"q\1" + text(names[1]) + b"q\2" + b"00"
    return keys + bottom + b"q\0" + b"0}(h\1h\0h\2h\0uq\0" * levels


def spelled_alike(levels: int) -> bytes:
    """Dicts whose keys 'a' and 'a.a' spell few paths in many ways: the numbers of Fibonacci."""
    body = FOUR + b"q\0" + table({"w": b"h\0"}) + b"q\1" + table({"w": b"h\0"}) + b"q\2"
    for i in range(3, levels + 3):
        body += table({"w": b"h\0", "a": b"h" + bytes([i - 1]), "a.a": b"h" + bytes([i - 2])}) + b"q" + bytes([i])
    return body


def colliding(count: int) -> bytes:
    """Integers whose hash is the same: a dict of them takes time that grows with the square of their number."""
    return table((integer(k * ((1 << 61) - 1)), b"N") for k in range(1, count))


def often(value: bytes, use: bytes, times: int) -> bytes:
    """A tuple of ``times`` results of ``use``, which finds ``value`` in memo 0."""
    return value + b"q\x000" + b"(" + use * times + b"t"


def ordered(pairs: bytes) -> bytes:
    return name("collections", "OrderedDict") + pairs + b"\x85R"


def many_dicts(length: int, times: int) -> bytes:
    pairs = listing(*(bundle(integer(i), b"N") for i in range(length)))
    return often(pairs, ordered(b"h\0"), times)


def many_sizes(length: int, times: int) -> bytes:
    return often(text(bytes(length)), name("torch", "Size") + b"h\0\x85R", times)


def many_arrays(length: int, times: int) -> bytes:
    return ARRAY + b"q\1" + often(array_state(bytes(length)), b"h\1h\0b", times)


def many_tensors(count: int, each: bytes = b"h\0") -> bytes:
    return FOUR + b"q\x000}(" + b"".join(text(f"a{i}") + each for i in range(count)) + b"u"


def subclasses(depth: int) -> bytes:
    """A tensor of a subclass that is rebuilt from a tensor of a subclass that is rebuilt from …"""
    rebuild = name("torch._tensor", "_rebuild_from_type_v2") + b"q\0"
    return rebuild + b"(h\0N" * depth + b")" + b"Nt" * depth + b"R"


# The tables ----------------------------------------------------------------------------------------------------------

Content = bytes | Callable[[], bytes]
"""A file's bytes, or what makes them where they are large or take time."""


@dataclass(frozen=True)
class Special:
    """What is no plain file of bytes, or needs others beside it."""

    write: Callable[[Path], object]


@dataclass(frozen=True)
class Row:
    """A file: what is wrong with it, a part of the sentence that says so, its content and its name.

    A `Special` content writes the file itself.
    """

    name: str
    says: str
    content: Content | Special
    file: str = "model.pth"

    def write(self, folder: Path) -> Path:
        path = folder / self.file
        if isinstance(self.content, Special):
            self.content.write(path)
        else:
            path.write_bytes(self.content if isinstance(self.content, bytes) else self.content())
        return path


def sharded(weight_map: object, **shards: bytes) -> Special:
    def write(path: Path) -> None:
        for shard, content in shards.items():
            (path.parent / shard).write_bytes(content)
        path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return Special(write)


def sparse(head: bytes, size: int) -> Special:
    def write(path: Path) -> None:
        path.write_bytes(head)
        os.truncate(path, size)

    return Special(write)


def later(make: Callable[..., bytes], content: Content) -> Content:
    """``make`` of the content, at once or when the content is."""
    return make(content) if isinstance(content, bytes) else lambda: make(content())


def _zip(name: str, says: str, body: Content) -> Row:
    return Row(f"zip: {name}", says, later(zipped, body))


def _pickle(name: str, says: str, body: Content) -> Row:
    return Row(f"pickle: {name}", says, later(pickled, body), "model.pkl")


def _safetensors(name: str, says: str, header: object, data: bytes = b"abcd", length: int | None = None) -> Row:
    def content() -> bytes:
        return safetensors(header() if callable(header) else header, data, length)

    return Row(f"safetensors: {name}", says, content, "model.safetensors")


def _index(name: str, says: str, weight_map: object, **shards: bytes) -> Row:
    return Row(f"index: {name}", says, sharded(weight_map, **shards), "model.index.json")


CUT = "is truncated"
EMPTY = "holds no named tensors"
ENDLESS = "nests its contents without end"
LENGTHS = "a shape or stride is not a list of lengths"
MISFIT = "a tensor's shape, strides and offset do not fit together"
DOCTORED = "is a damaged or manipulated zip archive"

W = table({"w": FOUR})
DATA = Record("archive/data.pkl", pickled(W))
ZERO = Record("archive/data/0", numbers((4,)))


def zero(local: Headers | None = None, central: Headers | None = None) -> bytes:
    """A network whose first storage, of 1,176 bytes, is spoken of otherwise than it is."""
    return network_zip("data/0", None, local, central)


ZIPS = (
    *(Row(f"zip: cut {where}", CUT, make) for where, make in zip_cuts().items()),
    Row(
        "zip: bit flipped in data.pkl", "the checksum of its pickle is wrong", flipped(network_zip(), b"data.pkl", 500)
    ),
    Row(
        "zip: bit flipped in a storage", "the checksum of storage '0' is wrong", flipped(network_zip(), b"data/0", 500)
    ),
    Row("zip: bit flipped beside a view", "the checksum of storage '0' is wrong", flipped(padded(), b"data/0", 0)),
    Row("zip: record twice", f"{DOCTORED}: it holds two records named 'archive/data/0'", archive([DATA, ZERO, ZERO])),
    Row("zip: record compressed", "the record 'archive/data.pkl' is compressed", compressed(numbers((4,)))),
    Row("zip: compression bomb", "is compressed", lambda: compressed(bytes(64 << 20))),
    Row("zip: method of compression unknown", "'archive/data/0' is compressed", zero(central={"method": 99})),
    Row("zip: record encrypted", "'archive/data/0' is encrypted", zero({"flags": 1}, {"flags": 1})),
    Row("zip: record encrypted by its own header", DOCTORED, zero(local={"flags": 1})),
    Row(
        "zip: directory lies about a size",
        "has 100 bytes, its pickle says 1,176",
        zero(central={"size": 100, "packed": 100}),
    ),
    Row(
        "zip: directory lies beyond the file", "outside of the file", zero(central={"size": 1 << 31, "packed": 1 << 31})
    ),
    Row("zip: two sizes", "another size in its own header", zero(local={"size": 100, "packed": 100})),
    Row("zip: two names", "another name in its own header", zero(local={"name": b"archive/data/9"})),
    Row("zip: two checksums", "another size in its own header", zero(local={"crc": 1})),
    Row("zip: name that is no text", "a record's name is not text", zero(central={"name": b"\xff" * 14})),
    Row("zip: two records in one place", "overlaps another", zero(central={"header": 0})),
    Row("zip: text before it", "is not a checkpoint: it starts with b'#!/bin/s'", b"#!/bin/sh\n" + network_zip()),
    Row("zip: header before it", "its directory is not where its end record says", b"PK\3\4" + network_zip()),
    Row("zip: hidden bytes before it", "data precedes its first record", archive([DATA, ZERO], b"PKhidden")),
    Row("zip: comment", "data follows its end", network_zip()[:-2] + b"\5\0hello"),
    Row("zip: comment announced", "its end record is not one that torch writes", network_zip()[:-2] + b"\5\0"),
    Row("zip: garbage behind it", "data follows its end", network_zip() + b"\0"),
    Row("zip: entries miscounted", "its directory has 2 entries and announces 3", archive([DATA, ZERO], announced=3)),
    Row("zip: two end records", "its two end records differ", lying_zip64()),
    Row("zip: directory of a million records", "its directory takes", crowded_zip),
    Row("zip: storage too short", "the storage '0' has 15 bytes, its pickle says 16", zipped(W, {"0": bytes(15)})),
    Row("zip: storage too long", "the storage '0' has 17 bytes, its pickle says 16", zipped(W, {"0": bytes(17)})),
    Row("zip: storage missing", "the storage '0' is missing", zipped(W, {"1": bytes(16)})),
    Row(
        "zip: document",
        "but not a checkpoint: it has no data.pkl",
        other_zip("[Content_Types].xml", "word/document.xml"),
    ),
    Row("zip: empty", "but not a checkpoint: it has no data.pkl", archive([])),
    Row("zip: two checkpoints", "but not a checkpoint", other_zip("a/data.pkl", "b/data.pkl")),
    Row(
        "zip: numpy's npz, compressed", "its arrays are compressed", lambda: numpy_file("savez_compressed", [1.0, 2.0])
    ),
    Row("zip: TorchScript", "is a TorchScript archive", torchscript),
    Row("zip: byte order unknown", "its byte order", network_zip("byteorder", b"middle")),
    Row("zip: byte order damaged", "its byte order", network_zip("byteorder", b"big", {"crc": 1}, {"crc": 1})),
    Row("zip: garbage behind the pickle", "follow its pickle", network_zip("data.pkl", pickled(W) + b"garbage")),
)

OUTSIDE = "the tensor w reaches outside its storage '0'"
VIEWS = (
    _zip("view beyond its storage by its offset", OUTSIDE, one_view([4], [1], offset=1)),
    _zip("view beyond its storage by its strides", OUTSIDE, one_view([4], [2])),
    _zip("view beyond its storage by its shape", OUTSIDE, one_view([5], [1])),
    _zip("view of 2 ** 61 numbers", OUTSIDE, one_view([1 << 61], [1])),
    _zip("view that expands to terabytes", "w expands 4 bytes into 4,398,046,511,104", one_view([1 << 20] * 2, [0, 0])),
    _zip("view at a negative offset", MISFIT, one_view([1], [1], offset=-1)),
    _zip("view at an offset beyond counting", MISFIT, one_view([1], [1], offset=1 << 70)),
    _zip("view of fewer strides than lengths", MISFIT, one_view([2, 2], [1])),
    _zip("view of negative length", LENGTHS, one_view([-1], [1])),
    _zip("view of negative stride", LENGTHS, one_view([2], [-1])),
    _zip("view of a length beyond counting", LENGTHS, one_view([1 << 62], [1])),
    _zip("view of a hundred axes", LENGTHS, one_view([1] * 100, [1] * 100)),
    _zip("storage of negative length", "a storage of -4 elements", one_view([4], [1], length=-4)),
    _zip("storage of two sizes", "storage '0' has two sizes", table({"v": FOUR, "w": tensor("0", (5,))})),
    _zip("storage that is a view", "a storage is a view of another", storage("0", 4, part_of="1")),
    _zip("persistent id that is no tuple", "a persistent id is not a storage", text("storage") + b"Q"),
    _zip("persistent id that is a line", "a persistent id is not a storage", b"Pstorage\n"),
    _zip("persistent id of garbage", "not described as torch does", bundle(text("storage"), *[b"N"] * 4) + b"Q"),
    _zip("storage whose name has lines", "the storage 'x", table({"w": tensor("x\nerror: y", (4,))})),
    _zip(
        "tensor whose name has lines",
        "reaches outside its storage",
        table({"a\nb\x1b[2J": view(storage("0", 4), [5], [1])}),
    ),
    _zip("a subclass of a subclass of …", "RecursionError", subclasses(5_000)),
    _zip("half a million tensors", "holds more than", lambda: many_tensors(450_000)),
    _zip("billion laughs about a tensor", ENDLESS, laughs(16, W)),
    _zip("name of a hundred thousand modules", "as its key", lambda: table({"module." * 100_000 + "w": FOUR})),
)

KEYS = "its list of storages is malformed"
LEGACY = (
    *(Row(f"legacy: cut {where}", CUT, make) for where, make in legacy_cuts().items()),
    Row("legacy: garbage behind it", "1 bytes follow its last storage", network_legacy() + b"\0"),
    Row("legacy: wrong magic", "follow its pickle", flipped(network_legacy(), b"\x80\x02", 3)),
    Row("legacy: other protocol", "is a legacy torch file of", legacy(W, protocol=integer(1000))),
    Row("legacy: protocol of two lines", "is a legacy torch file of", legacy(W, protocol=text("a\nb"))),
    Row("legacy: protocol without end", "is a legacy torch file of", legacy(W, protocol=DEEP)),
    Row("legacy: count unlike the pickle's", "has 5 elements, its pickle says 4", legacy(W, counts=[5])),
    Row("legacy: negative count", "has -1 elements, its pickle says 4", legacy(W)[:-24] + b"\xff" * 24),
    Row("legacy: storage missing", "the storage '0' is missing", legacy(W, keys=[], counts=[])),
    Row("legacy: storage nobody speaks of", "does not mention", legacy(W, keys=["0", "1"], counts=[4, 4])),
    Row("legacy: storage twice", KEYS, legacy(W, keys=["0", "0"], counts=[4, 4])),
    Row("legacy: storage twice, once by a number", KEYS, legacy(W, keys=["0", 0], counts=[4, 4])),
    Row("legacy: storage without a name", KEYS, legacy(W, keys=[None])),
    Row("legacy: view beyond its storage", OUTSIDE, legacy(one_view([5], [1]))),
)

KEY = "as its key"
PICKLES = (
    Row("pickle: no end", CUT, pickled(b"}")[:-1]),
    _pickle("garbage behind it", "8 bytes follow its pickle", b"}.garbage"),
    _pickle("unknown opcode", r"there is no opcode b'\xff'", b"\xff"),
    _pickle("nothing on the stack", "IndexError", b"0"),
    _pickle("tuple of nothing", "the stack is empty", b"\x87"),
    _pickle("no mark", "a mark is missing", b"Nt"),
    _pickle("nothing in the memo", "KeyError: 5", b"h\5"),
    _pickle("memo index 2 ** 32 - 1", "KeyError: 4294967294", b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff"),
    _pickle("memo of 900,000", EMPTY, lambda: b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(900_000))),
    _pickle("extension registry", "copyreg extension registry", b"\x82\x01"),
    _pickle("out-of-band buffer", "out-of-band buffers", b"\x97"),
    _pickle("persistent id outside torch", "refers to something outside itself", b"NQ"),
    _pickle("line without end", "a line has no end", b"V" + b"x" * 20),
    _pickle("long line without end", "a line has no end", b"V" + b"x" * 300_000),
    _pickle("text that is no UTF-8", "UnicodeDecodeError", text(b"\xff")),
    _pickle("text longer than the file", CUT, b"X\xff\xff\xff\0abc"),
    _pickle("text of 4 GB announced", "a text of 4,294,967,295 bytes", b"X\xff\xff\xff\xff"),
    _pickle("text of 2 ** 64 bytes announced", "a text of 18,446,744,073,709,551,615 bytes", b"\x8d" + b"\xff" * 8),
    _pickle("bytes of 2 ** 64 bytes announced", CUT, b"\x8e" + b"\xff" * 8),
    _pickle("text of negative length", "a text of -5 bytes", b"T" + struct.pack("<i", -5)),
    _pickle("text that runs back to itself", "a text of -510 bytes", text(bytes(500)) + b"T" + struct.pack("<i", -510)),
    _pickle("text that would grow when read", EMPTY, lambda: text("\U0001f600".encode() + bytes(48 << 20))),
    _pickle("old text of odd escapes", EMPTY, rb"S'\d\q'" + b"\n"),
    _pickle("old text of broken escapes", "ValueError", rb"S'\x1'" + b"\n"),
    _pickle("text of broken escapes", "UnicodeDecodeError", rb"V\u12" + b"\n"),
    _pickle("integer of 2 GB announced", "an integer of 2147483647 bytes", b"\x8b\xff\xff\xff\x7f"),
    _pickle("integer of negative length", "an integer of -1 bytes", b"\x8b\xff\xff\xff\xff"),
    _pickle("integer of 50,000 digits", "ValueError", b"I" + b"9" * 50_000 + b"\n"),
    _pickle("number that is none", "ValueError", b"Fabc\n"),
    _pickle("call of nothing", "ValueError", b"(o"),
    _pickle("key that cannot be one", "unhashable type: 'list'", b"}]Ns"),
    _pickle("odd number of items", "IndexError", b"}(Nu"),
    _pickle("name that is no text", "a global's name is not text", b"NN\x93"),
    _pickle("array of another size", "an array of 9 bytes is given 5", ARRAY + array_state(b"five!", 9) + b"b"),
    _pickle("array without state", EMPTY, table({"w": ARRAY})),
    _pickle("array's state given often", "its arrays hold more bytes", lambda: many_arrays(4_000, 300)),
    _pickle("array's long state given often", EMPTY, lambda: many_arrays(1 << 20, 300)),
    _pickle("list that holds itself", ENDLESS, b"]q\0h\0a"),
    _pickle("dict that holds itself", ENDLESS, b"}q\0" + text("a") + b"h\0s"),
    _pickle("lists in lists", ENDLESS, b"]" * 400_000 + b"a" * 399_999),
    _pickle("tuples in tuples", ENDLESS, DEEP),
    _pickle("three million lists", "it has more than", b"]" * 3_000_000),
    _pickle("almost two million dicts", "it has more than", lambda: b"(" + b"}" * 1_990_000 + b"t"),
    _pickle("list of a million", EMPTY, lambda: listing(b"N" * 990_000)),
    _pickle("one long list in many places", ENDLESS, lambda: often(listing(b"N" * 50_000), b"h\0", 300)),
    _pickle("billion laughs", ENDLESS, laughs(23)),
    _pickle("billion laughs with names", ENDLESS, laughs(23, names=("a" * 240, "b" * 240))),
    _pickle("billion laughs with long names", ENDLESS, laughs(14, names=("a" * 4_000, "b" * 4_000))),
    _pickle("nested tuple as a key", KEY, b"}" + DEEP + b"Ns"),
    _pickle("nested tuple as a key of pairs", KEY, b"(" + DEEP + b"Nd"),
    _pickle(
        "nested tuple as a key of an OrderedDict",
        KEY,
        ordered(listing(bundle(DEEP, b"N"))),
    ),
    _pickle(
        "long tuple as a key, often",
        KEY,
        b"(" + b"N" * 100_000 + b"tq\x000}(" + b"h\0N" * 2_000 + b"u",
    ),
    _pickle("integer keys that collide", KEY, lambda: colliding(20_000)),
    _pickle("key of a megabyte", KEY, lambda: table({"a" * (1 << 20): b"N"})),
    _pickle("one OrderedDict made often", "pairs", lambda: many_dicts(20_000, 300)),
    _pickle("size made of a long text, often", LENGTHS, lambda: many_sizes(1 << 20, 100)),
)

SHAPELESS = {"dtype": "F32", "data_offsets": [0, 4]}
MALFORMED = "the entry of 'w' is malformed"
GAP = "its tensors overlap or leave a gap"
TENSORS = (
    Row("safetensors: cut in the length", "is not a checkpoint: it starts with", network_safetensors()[:5]),
    Row("safetensors: cut behind the length", "is not a checkpoint: it starts with", network_safetensors()[:8]),
    Row("safetensors: cut in the header", CUT, network_safetensors()[:500]),
    Row("safetensors: cut before the data", CUT, safetensors({"w": entry()}, b"")),
    Row("safetensors: cut in the data", CUT, network_safetensors()[:-100]),
    Row("safetensors: garbage behind it", "1 bytes follow its tensors", network_safetensors() + b"\0"),
    _safetensors("header of 2 ** 39 bytes", "its header takes 549,755,813,888 bytes", {}, length=1 << 39),
    _safetensors("header of 2 ** 63 bytes", "is not a checkpoint: it starts with", {}, length=1 << 63),
    _safetensors("header that is no JSON", "its header is not JSON", b'{"w": }'),
    _safetensors("header that is no text", "its header is not JSON", b'{"\xff": 1}'),
    _safetensors("garbage behind the header", "its header is not JSON", b"{}garbage"),
    _safetensors("header nested without end", "its header is not JSON", b'{"a":' + b"[" * 100_000),
    _safetensors("header of millions of lists", "its header", lambda: b'{"a":[' + b"[]," * (5 << 20) + b"1]}"),
    Row("safetensors: header of 90 MB", "its header takes", sparse(struct.pack("<Q", 90 << 20) + b'{"', 1 << 40)),
    _safetensors("name twice", "a name occurs twice", b'{"w":%b,"w":%b}' % ((json.dumps(entry()).encode(),) * 2)),
    _safetensors("field twice", "a name occurs twice", b'{"w":{"shape":[1],"shape":[1]}}'),
    _safetensors("no name", "the entry of '' is malformed", {"": entry()}),
    _safetensors(
        "metadata that is no table", "its metadata does not map names to texts", {"__metadata__": [], "w": entry()}
    ),
    _safetensors("metadata that is no text", "its metadata does not map names to texts", {"__metadata__": {"a": 1}}),
    _safetensors("entry that is no table", MALFORMED, {"w": 1}),
    _safetensors("entry without shape", MALFORMED, {"w": SHAPELESS}),
    _safetensors("shape that is no list", MALFORMED, {"w": entry(shape=1)}),
    _safetensors("shape of truth values", MALFORMED, {"w": entry(shape=[True])}),
    _safetensors("shape of fractions", MALFORMED, {"w": entry(shape=[1.0])}),
    _safetensors("negative length", MALFORMED, {"w": entry(shape=[-1])}),
    _safetensors("length beyond counting", MALFORMED, {"w": entry(shape=[1 << 62])}),
    _safetensors("negative offset", MALFORMED, {"w": entry(-4, 0)}),
    _safetensors("offsets that run backwards", "'w' takes 4 bytes and is given -4", {"w": entry(4, 0)}),
    _safetensors("shape unlike its bytes", "'w' takes 8 bytes and is given 4", {"w": entry(shape=[2])}),
    _safetensors(
        "lengths whose product overflows", "'w' takes 73,786,976,294,838,206,464", {"w": entry(shape=[1 << 32] * 2)}
    ),
    _safetensors(
        "unknown element type", "'w' has the element type 'F12', which is not supported", {"w": entry(dtype="F12")}
    ),
    _safetensors("element type that is no text", "'w' has the element type 32, which", {"w": entry(dtype=32)}),
    _safetensors("overlap", GAP, {"v": entry(), "w": entry()}),
    _safetensors("gap", GAP, {"v": entry(), "w": entry(8, 12)}, bytes(12)),
    _safetensors("gap at the start", GAP, {"w": entry(4, 8)}, bytes(8)),
    _safetensors("no tensors", EMPTY, {"__metadata__": {}}, b""),
    _safetensors("name of two lines", "which is not supported", {"a\nerror: \x1b[2J": entry(dtype="F12")}),
    _safetensors("name of a megabyte", "which is not supported", lambda: {"a" * (1 << 20): entry(dtype="F12")}),
    _safetensors("name that is half a character", "which is not supported", {"\ud800": entry(dtype="F12")}),
)

OTHERS_FOLDER = "names a shard outside its folder: "
NO_INDEX = "is JSON, but not an index of shards"
SHARD = safetensors({"w": entry()})
INDICES = (
    _index("shard in another folder", f"{OTHERS_FOLDER}../x", {"w": "../x"}),
    _index("shard by an absolute path", f"{OTHERS_FOLDER}/etc/passwd", {"w": "/etc/passwd"}),
    _index("shard that is a folder", f"{OTHERS_FOLDER}..", {"w": ".."}),
    _index("shard whose name has lines", OTHERS_FOLDER, {"w": "a\n/\x1b[2J"}),
    _index("shard missing", "there is no file", {"w": "missing.safetensors"}),
    _index("shard without the tensor", "says that one holds v, but it does not", {"v": "one"}, one=SHARD),
    _index("shard that is cut", CUT, {"w": "one"}, one=SHARD[:-1]),
    _index("shard that is the index", "an index itself", {"w": "model.index.json"}),
    _index("shard that is another index", "an index itself", {"w": "two"}, two=b'{"weight_map": {"w": "three"}}'),
    _index("shard whose name holds a zero", OTHERS_FOLDER, {"w": "a\0b"}),
    _index("shard whose name is half a character", OTHERS_FOLDER, {"w": "\ud800"}),
    _index("shard whose name is too long", "cannot be opened", {"w": "x" * 300}),
    _index("map that is a list", NO_INDEX, ["w"]),
    _index("map of numbers", NO_INDEX, {"w": 1}),
    _index("map of nothing", NO_INDEX, {}),
    Row("index: other JSON", NO_INDEX, b'{"architectures": ["ResNet"]}', "config.json"),
    Row("index: name twice", "a name occurs twice", b'{"weight_map": {"w": "a", "w": "b"}}', "model.index.json"),
    Row("index: cut", "is not JSON", b'{"weight_map": {"w": "a"', "model.index.json"),
    Row("index: of a terabyte", "JSON", sparse(b'{"weight_map"', 1 << 40), "model.index.json"),
)

STRANGE = "is not a checkpoint: it starts with"
UNSUPPORTED = (
    Row("empty file", "is empty", b""),
    Row("one byte", f"{STRANGE} b'x'", b"x"),
    Row("one opcode", CUT, b"\x80"),
    Row("random bytes", STRANGE, bytes((i * i * 31 + 7) % 251 for i in range(4096))),
    Row("zeros", STRANGE, bytes(4096)),
    Row("Git LFS pointer", "is a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    Row("web page", "is a web page", b"\n<!DOCTYPE html>\n<html><title>404 Not Found</title></html>"),
    Row("XML of a bucket", "is a web page", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
    Row("gzip", "is gzip-compressed", gzip.compress(network_zip())),
    Row("bzip2", "is bzip2-compressed", bz2.compress(network_zip())),
    Row("xz", "is xz-compressed", lzma.compress(network_zip())),
    Row("HDF5", "is an HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(100)),
    Row("tar", "is a tar archive", tar(), "model.pth.tar"),
    Row("ONNX", "is an ONNX model", b"\x08\x07\x12\x07pytorch\x1a\x032.1:\x8c\x01\n" + bytes(100), "model.onnx"),
    Row("numpy array", "is a single numpy array", lambda: numpy_file("save", [1.0, 2.0]), "weights.npy"),
    Row("numpy array, cut", CUT, lambda: numpy_file("save", [1.0])[:7], "weights.npy"),
    Row("numpy pickle, cut", CUT, lambda: network_numpy()[:-100], "weights.pkl"),
    Row("numpy pickle, garbage behind it", "1 bytes follow", lambda: network_numpy() + b"\0", "weights.pkl"),
    Row("directory", "is a directory", Special(Path.mkdir)),
    Row("FIFO", "is not a regular file", Special(os.mkfifo)),
    Row("missing file", "there is no file", Special(lambda path: None)),
    Row("link to nothing", "there is no file", Special(lambda path: path.symlink_to("nowhere"))),
    Row("link to itself", "cannot be opened", Special(lambda path: path.symlink_to(path.name))),
)

PATIENCE = 10
"""Seconds; a good deal more than the second that any of these may take."""

HOSTILE = (
    _zip("a hundred thousand tensors", "", lambda: many_tensors(99_000)),
    _zip("forty thousand state dicts", "", lambda: many_tensors(40_000, table({"w": b"h\0"}))),
    _zip("paths that are spelled alike", "", spelled_alike(20)),
    _zip("few laughs about a tensor", "", laughs(14, W)),
)
"""Files that could be checkpoints, and are made to take long: whatever the answer is, it comes soon."""

ROWS = (*ZIPS, *VIEWS, *LEGACY, *PICKLES, *TENSORS, *INDICES, *UNSUPPORTED)


def beside(*pairs: tuple[bytes, bytes]) -> bytes:
    """A network under 'state_dict', and other things beside it."""
    return zipped(table([*pairs, (text("state_dict"), table(weights()))]), storages())


def network_beside(key: str) -> bytes:
    """A network with a classifier of that name."""
    return zipped(table({"state_dict": table(weights() | {key: tensor("1", (2,))})}), storages())


TWO = table({"w": tensor("1", (2,))})
NOTHING = table({"x": b"N"})
SOUND = (
    Row("zip", "", network_zip()),
    Row("zip, a view in a longer storage", "", padded()),
    Row("legacy", "", network_legacy()),
    Row("safetensors", "", network_safetensors()),
    Row("safetensors whose length starts like a pickle", "", network_safetensors(0x4080)),
    Row("safetensors whose length starts like a zip", "", network_safetensors(0x4B50)),
    Row("safetensors whose length starts like gzip", "", network_safetensors(0x8B1F)),
    Row("numpy", "", network_numpy, "weights.pkl"),
    Row("numpy, by numpy.save", "", lambda: numpy_file("save", pickle.loads(network_numpy())), "weights.npy"),
    Row("index", "", sharded(dict.fromkeys(SHAPES, "one"), one=network_safetensors())),
    Row("index of a shard with a colon", "", sharded(dict.fromkeys(SHAPES, "a:b"), **{"a:b": network_safetensors()})),
    Row("memo index 2 ** 32 - 1", "", beside((text("x"), b"Nr\xff\xff\xff\xff"))),
    Row("key like a path", "", beside((text("a"), NOTHING), (text("a.b"), TWO))),
    Row("key like a path into a tensor", "", beside((text("a"), tensor("1", (2,))), (text("a.b"), TWO))),
    Row("key like a path into text", "", beside((text("a"), text("x")), (text("a.b"), TWO))),
    Row("empty key", "", beside((text(""), TWO))),
    Row("number and text as one key", "", beside((integer(1), NOTHING), (text("1"), TWO))),
    Row("key that is half a character", "", network_beside("fc.\ud800")),
    Row("key of two lines", "", network_beside("fc.a\nforged\x1b]0;title\x07")),
)
"""Files that convert: the bases of the rows above, and odd ones that are right all the same."""
