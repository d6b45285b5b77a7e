"""Reads pickled dictionaries of numpy arrays (detectron2's and haiku's `.pkl`), bare or inside a `.npy` file.

Source of the `.npy` header: `numpy/lib/_format_impl.py`.
"""

from __future__ import annotations

from ckptconv.errors import UnreadableError
from ckptconv.formats import haiku_pickle
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.numpy_pickle import PickledArray
from ckptconv.formats.torch_pickle import PickledTensors
from ckptconv.formats.unpickler import Unpickler
from ckptconv.sources.file import Source

NPY_MAGIC = b"\x93NUMPY"


def read_pickle(source: Source, start: int = 0, name: str = "numpy pickle") -> Checkpoint:
    """Open a pickle with arrays inside it; their bytes are read when they are needed."""
    pickled = PickledTensors(source)
    unpickler = Unpickler(source, start, source.size, haiku_pickle.handlers(pickled))
    tree = unpickler.load()
    if isinstance(tree, PickledArray) and len(tree.objects) == 1:
        tree = tree.objects[0]  # numpy.save puts any other object into an array of one object
    if unpickler.tell() != source.size:
        raise UnreadableError(
            f"{source.path}: {source.size - unpickler.tell():,} bytes follow its pickle",
            "The file is damaged, or holds more than one object. Download it again from its source.",
        )
    return Checkpoint(
        source.path,
        name,
        (source,),
        tree,
        lambda key: pickled.arrays[key],
        lambda key: pickled.arrays[key].nbytes,
        pickled.extent,
        tuple(unpickler.named),
        called=tuple(unpickler.called),
    )


def read_npy(source: Source) -> Checkpoint:
    """Open a `.npy` file that holds a pickled dictionary: numpy.save of an object."""
    major = source.read(6, 1)[0]
    width = 2 if major == 1 else 4
    length = int.from_bytes(source.read(8, width), "little")
    header = source.read(8 + width, min(length, 1 << 16))
    if b"'|O'" not in header and b"'O'" not in header:
        raise UnreadableError(
            f"{source.path} is a single numpy array, not a checkpoint",
            "A checkpoint is a dictionary of arrays by name.",
        )
    return read_pickle(source, 8 + width + length, "numpy .npy")
