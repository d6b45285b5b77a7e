"""Modules that users' configs import by `custom_imports`. Their import paths are public."""
