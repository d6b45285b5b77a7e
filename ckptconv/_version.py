"""The version, read by the build and written into outputs."""

__version__ = "0.2.0"
