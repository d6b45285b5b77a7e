"""Reads what torch.save writes: zip archives (torch 1.6 on) and the legacy format before them.

Sources: `torch/serialization.py` (`_save`, `_legacy_save`), `caffe2/serialize/inline_container.cc` (records),
`torch/csrc/generic/serialization.cpp` (legacy storages: an int64 count, then little-endian elements on any machine).
"""

from __future__ import annotations

import zlib

from ckptconv.errors import UnreadableError
from ckptconv.formats import npz_file
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.storage import Extent, Storage
from ckptconv.formats.torch_pickle import PickledTensors, StorageRef
from ckptconv.formats.unpickler import Unpickler
from ckptconv.formats.zip_directory import ZipDirectory, ZipEntry
from ckptconv.sources.file import Source

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_PICKLE = 1 << 30


def read_zip(source: Source) -> Checkpoint:
    """Open a zip checkpoint, torch's or numpy's: its directory and its pickle are read, none of its tensors."""
    directory = ZipDirectory(source)
    records = directory.records
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        if npz_file.is_npz(directory):
            return npz_file.read(source, directory)
        raise UnreadableError(
            f"{source.path} is a zip archive, but not a checkpoint: it has no data.pkl",
            "If the checkpoint is inside it, unpack it first.",
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in records:
        raise UnreadableError(
            f"{source.path} is a TorchScript archive: a program, not a state dict",
            "Save its weights where it was made: torch.save(torch.jit.load(FILE).state_dict(), NEW).",
        )
    directory.require_plain()
    pickle = records[pickles[0]]
    start = directory.locate(pickle)
    if pickle.size > _MAX_PICKLE:
        raise UnreadableError(
            f"{source.path}: its pickle takes {pickle.size:,} bytes", "No checkpoint needs that many."
        )
    _require_crc(source, pickle, start, "pickle")
    big_endian = _is_big_endian(source, directory, records.get(f"{root}byteorder"))

    pickled = PickledTensors(source)
    unpickler = Unpickler(source, start, start + pickle.size, pickled.handlers, pickled.storage)
    tree = unpickler.load()
    rest = start + pickle.size - unpickler.tell()
    if rest:
        raise UnreadableError(f"{source.path}: {rest:,} bytes follow its pickle", "Download it again.")
    located: dict[str, Storage] = {}

    def record_of(key: str) -> ZipEntry:
        record = records.get(f"{root}data/{key}")
        if record is None:
            raise UnreadableError(
                f"{source.path}: the storage '{key}' is missing",
                "The file is damaged. Download it again from its source.",
            )
        announced = pickled.refs[key].nbytes
        if record.size != announced:
            raise UnreadableError(
                f"{source.path}: the storage '{key}' has {record.size:,} bytes, its pickle says {announced:,}",
                "The file is damaged. Download it again from its source.",
            )
        return record

    def locate(key: str) -> Storage:
        if key in pickled.arrays:
            return pickled.arrays[key]
        if key not in located:
            record = record_of(key)
            located[key] = Storage(record.size, source, directory.locate(record), record.crc, big_endian=big_endian)
        return located[key]

    def nbytes_of(key: str) -> int:
        return pickled.arrays[key].nbytes if key in pickled.arrays else record_of(key).size

    def extent(key: str) -> Extent | None:
        return pickled.extent(key) if key in pickled.arrays else (source, *directory.extent(record_of(key)))

    return Checkpoint(
        source.path,
        "torch zip",
        (source,),
        tree,
        locate,
        nbytes_of,
        extent,
        tuple(unpickler.named),
        called=tuple(unpickler.called),
    )


def _is_big_endian(source: Source, directory: ZipDirectory, record: ZipEntry | None) -> bool:
    """The record `byteorder`; torch before 2.1 writes none, and little-endian."""
    if record is None:
        return False
    start = directory.locate(record)
    _require_crc(source, record, start, "byte order")
    order = source.read(start, min(record.size, 8))
    if order not in (b"little", b"big"):
        raise UnreadableError(f"{source.path}: its byte order is {order!r}", "Download it again from its source.")
    return order == b"big"


def _require_crc(source: Source, record: ZipEntry, start: int, what: str) -> None:
    crc, at, end = 0, start, start + record.size
    while at < end:
        part = source.read(at, min(1 << 20, end - at))
        crc, at = zlib.crc32(part, crc), at + len(part)
    if crc != record.crc:
        raise UnreadableError(
            f"{source.path}: the checksum of its {what} is wrong",
            "The file was damaged in transfer. Download it again.",
        )


def read_legacy(source: Source) -> Checkpoint:
    """Open a legacy checkpoint: five pickles, then every storage behind an int64 that counts its elements."""
    pickled = PickledTensors(source)
    unpickler = Unpickler(source, 0, source.size, pickled.handlers, pickled.storage)
    magic, protocol, _system = unpickler.load(), unpickler.load(), unpickler.load()
    if magic != LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
        raise UnreadableError(
            f"{source.path} is a legacy torch file of an unknown protocol", "Load and save it again with a newer torch."
        )
    tree = unpickler.load()
    keys = unpickler.load()
    storages = _legacy_storages(source, pickled, keys, unpickler.tell())
    uncounted = set() if source.is_local else {*storages}

    def locate(key: str) -> Storage:
        storage = storages.get(key) or pickled.arrays.get(key)
        if storage is None:
            raise UnreadableError(
                f"{source.path}: the storage '{key}' is missing", "The file is damaged. Download it again."
            )
        if key in uncounted:
            _require_count(source, key, pickled.refs[key], storage)
            uncounted.discard(key)
        return storage

    def nbytes_of(key: str) -> int:
        storage = storages.get(key)
        return storage.nbytes if storage else locate(key).nbytes

    def extent(key: str) -> Extent | None:
        storage = storages.get(key)
        return (source, storage.offset - 8, storage.offset + storage.nbytes) if storage else pickled.extent(key)

    return Checkpoint(
        source.path,
        "torch legacy",
        (source,),
        tree,
        locate,
        nbytes_of,
        extent,
        tuple(unpickler.named),
        called=tuple(unpickler.called),
    )


def _require_count(source: Source, key: str, ref: StorageRef, storage: Storage) -> None:
    """The count of elements before a storage must be the pickle's."""
    count = int.from_bytes(source.read(storage.offset - 8, 8), "little", signed=True)
    if count * ref.itemsize != ref.nbytes:
        raise UnreadableError(
            f"{source.path}: the storage '{key}' has {count:,} elements, its pickle says "
            f"{ref.nbytes // ref.itemsize:,}",
            "The file is damaged. Download it again from its source.",
        )


def _legacy_storages(source: Source, pickled: PickledTensors, keys: object, at: int) -> dict[str, Storage]:
    """The position of each storage: they follow each other, and the pickle has their sizes."""
    if (
        not isinstance(keys, list)
        or not all(isinstance(k, str | int) for k in keys)
        or len(set(map(str, keys))) != len(keys)
    ):
        raise UnreadableError(
            f"{source.path}: its list of storages is malformed", "The file is damaged. Download it again."
        )
    storages: dict[str, Storage] = {}
    for key in map(str, keys):
        ref = pickled.refs.get(key)
        if ref is None:
            raise UnreadableError(
                f"{source.path}: it holds a storage '{key}' that its pickle does not mention",
                "The file is damaged, or of a type that cannot be read (quantized). Download it again.",
            )
        storages[key] = Storage(ref.nbytes, source, at + 8)
        if (
            source.is_local
        ):  # remotely each would cost a request; there, only the counts of storages that are read are checked
            _require_count(source, key, ref, storages[key])
        at += 8 + ref.nbytes
        if at > source.size:
            raise source.truncated()
    if at != source.size:
        raise UnreadableError(
            f"{source.path}: {source.size - at:,} bytes follow its last storage",
            "torch.save does not write such files. Download it again from its source.",
        )
    return storages
