"""MMDetection is imported here, once, with the warnings of its own old code; in the tests warnings are errors."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmdet.models  # noqa: F401
