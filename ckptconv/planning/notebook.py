"""A plan as a few lines of HTML, for a notebook."""

from __future__ import annotations

from ckptconv.planning.plan import Plan
from ckptconv.planning.problem_texts import text_of
from ckptconv.report import parts
from ckptconv.report.page import fragment

_MOST = 5  # problems


def plan_fragment(plan: Plan) -> str:
    """What is kept and left out, or the first problems."""
    network = plan.backbone.name if plan.backbone else "no network"
    left = f"{len(plan.dropped)} of {plan.entries} entries of the file"
    facts = [("method", f"{plan.method}, {plan.layout}"), ("target", plan.target), ("left out", left)]
    if plan.complete:
        return fragment(parts.GOOD, f"Complete: {len(plan.moves)} tensors of {network}.", facts)
    problems = [text_of(problem) for problem in plan.problems]
    more = [f"… and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return fragment(parts.BAD, f"Not complete: {count} with {network}.", facts, [*problems[:_MOST], *more])
