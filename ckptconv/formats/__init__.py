"""Reading and writing checkpoint files."""

from ckptconv.formats.detect_format import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.storage import Storage, StoredTensor
from ckptconv.sources.file import RemotePath, Source

__all__ = ["Checkpoint", "RemotePath", "Source", "Storage", "StoredTensor", "open_checkpoint"]
