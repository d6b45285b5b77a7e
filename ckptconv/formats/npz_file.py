"""Reads a `.npz` file of numpy.savez: a zip archive with one `.npy` file for each array, under the array's name.

Source of a `.npy` file's header: `numpy/lib/_format_impl.py`.
"""

from __future__ import annotations

import ast

from ckptconv.errors import UnreadableError
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.numpy_pickle import NumpyType
from ckptconv.formats.records import Malformed, parse_lengths
from ckptconv.formats.storage import Storage, StoredTensor
from ckptconv.formats.zip_directory import ZipDirectory, ZipEntry
from ckptconv.sections import require_few
from ckptconv.sources.file import Source
from ckptconv.spec import TensorSpec

NPY_MAGIC = b"\x93NUMPY"
_SUFFIX = ".npy"
_MAX_HEADER = 1 << 12
"""Bytes of a header; numpy writes 128, and refuses to read more than 10,000 characters."""


def is_npz(directory: ZipDirectory) -> bool:
    """Whether every record of an archive is named as an array."""
    return bool(directory.records) and all(name.endswith(_SUFFIX) for name in directory.records)


def read(source: Source, directory: ZipDirectory) -> Checkpoint:
    """Open an archive of arrays: the header of each is read, and none of its elements.

    A record is a storage, header included, for that is what its checksum covers.
    """
    require_few(len(directory.records))
    tree: dict[str, object] = {}
    storages: dict[str, Storage] = {}
    for record in directory.records.values():
        if not record.plain:
            raise UnreadableError(
                f"{source.path}: its arrays are compressed", "Read them with numpy and write them with numpy.savez."
            )
        name, start = record.name.removesuffix(_SUFFIX), directory.locate(record)
        try:
            tree[name], storages[name] = _array(source, record, name, start)
        except (Malformed, ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
            raise UnreadableError(
                f"{source.path}: the header of its array '{name}' is malformed ({error})",
                "The file is damaged or malicious. Download it again from its source.",
            ) from None
    return Checkpoint(
        source.path,
        "numpy .npz",
        (source,),
        tree,
        storages.__getitem__,
        lambda key: storages[key].nbytes,
        lambda key: (source, storages[key].offset, storages[key].offset + storages[key].nbytes),
    )


def _array(source: Source, record: ZipEntry, name: str, start: int) -> tuple[object, Storage]:
    """An array as a view of its record, or the name of its elements' type if they are not numbers."""
    head = source.read(start, min(record.size, _MAX_HEADER))
    width = {1: 2, 2: 4, 3: 4}[head[6] if head.startswith(NPY_MAGIC) else 0]
    begin = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if begin > len(head):
        raise ValueError("it is too long")
    header = ast.literal_eval(head[8 + width : begin].decode("latin-1").strip())
    kind = NumpyType(header["descr"])
    if kind.dtype is None:
        return kind.name, Storage(record.size, source, start, record.crc)
    spec = TensorSpec(parse_lengths(header["shape"]), kind.dtype)
    if begin + spec.nbytes != record.size or begin % kind.dtype.itemsize:
        raise ValueError(f"it announces {spec.nbytes:,} bytes and {record.size - begin:,} follow")
    strides = tuple(reversed(TensorSpec(spec.shape[::-1], spec.dtype).strides))
    stored = StoredTensor(
        spec, name, begin // kind.dtype.itemsize, strides if header["fortran_order"] else spec.strides
    )
    return stored, Storage(record.size, source, start, record.crc, big_endian=kind.big_endian)
