"""Questions one can ask without converting a file: what is inside, what becomes of a name, what is known."""

from ckptconv.inspection.contents import Fit, FittingMethods, Inspection, dropped_by_reason, fitting, inspect
from ckptconv.inspection.explanation import Explanation, explain
from ckptconv.inspection.known import known_method, known_methods, known_releases, methods_about

__all__ = [
    "Explanation",
    "Fit",
    "FittingMethods",
    "Inspection",
    "dropped_by_reason",
    "explain",
    "fitting",
    "inspect",
    "known_method",
    "known_methods",
    "known_releases",
    "methods_about",
]
