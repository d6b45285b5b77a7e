"""What may not be written: names that other programs take for another format, and sections that a format lacks."""

from __future__ import annotations

from pathlib import Path

from ckptconv.arguments import argument
from ckptconv.backbones.interface import CANONICAL
from ckptconv.errors import UsageError
from ckptconv.formats.writers import Writer
from ckptconv.planning.plan import Plan

_NOT_WRITTEN = {
    ".onnx": "an ONNX model",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".keras": "a Keras model",
    ".npz": "a numpy archive",
    ".npy": "a numpy array",
    ".tflite": "a TensorFlow Lite model",
    ".pb": "a TensorFlow graph",
    ".msgpack": "a Flax checkpoint",
    ".gguf": "a GGUF file",
    ".engine": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".py": "a Python file",
    ".json": "a JSON file",
    ".toml": "a TOML file",
    ".yaml": "a YAML file",
    ".yml": "a YAML file",
    ".csv": "a table",
    ".txt": "a text",
    ".zip": "a zip archive",
    ".gz": "a compressed file",
}
"""Suffixes of what is not written, and what has them."""


def require_fitting_name(destination: Path) -> None:
    """Raises UsageError for a name by which other programs would take the file for what it is not."""
    kind = _NOT_WRITTEN.get(destination.suffix.lower())
    if kind is not None:
        raise UsageError(
            f"{destination} has the name of {kind}, and ckptconv writes torch and safetensors files",
            f"Give a name that ends in .pth or .safetensors, such as {destination.with_suffix('.pth')}.",
            "destination",
        )


def require_section(writer: Writer, format: str, adjusted: Plan) -> None:
    """Raises UsageError where the target's loader looks under a key that the format does not have."""
    section = adjusted.dialect.section
    if not writer.has_sections and section != CANONICAL.section:
        raise UsageError(
            f"{adjusted.target} reads its weights from '{section}' of a torch file, and {format} has no such thing",
            f"Write a torch file: a name that ends in .pth, or {argument('format', 'torch')}.",
            "format",
        )
