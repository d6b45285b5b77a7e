"""The version, read by the build and written into outputs."""

__version__ = "0.1.0"
