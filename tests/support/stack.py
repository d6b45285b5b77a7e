"""Which stack of packages the tests run in: OpenMMLab's, or its forks' (distributions onedl-…)."""

from __future__ import annotations

import importlib.metadata

FORKS = any((d.metadata["Name"] or "").startswith("onedl-mm") for d in importlib.metadata.distributions())
