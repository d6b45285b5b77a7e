"""Whether the methods that explain a file agree: if their results are the same, any of them will do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptconv.errors import UnidentifiedError
from ckptconv.methods.interface import Method
from ckptconv.planning.convert_calls import convert_call
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan
from ckptconv.text import section_label


@dataclass(frozen=True)
class Match:
    """A complete plan, the method it is from, how it was found, and the other methods that give the same plan."""

    method: Method
    plan: Plan
    named: bool
    others: tuple[Method, ...] = ()

    @property
    def also(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(method.name for method in self.others)


def agreed(complete: Sequence[tuple[Method, Plan]], options: Options) -> Match:
    """One match of several complete plans. Raises UnidentifiedError if they differ."""
    error = disagreement(complete, options)
    if error is not None:
        raise error
    method, plan = complete[0]
    return Match(method, plan, named=False, others=tuple(m for m, _ in complete[1:]))


def disagreement(complete: Sequence[tuple[Method, Plan]], options: Options) -> UnidentifiedError | None:
    """The error for complete plans that keep different tensors; None if all keep the same."""
    others = [(m, p) for m, p in complete[1:] if not p.same_as(complete[0][1])]
    if not others:
        return None
    differing = [complete[0], *others]
    kept = [f"{m.name} keeps {len(p.moves)} tensors of {section_label(p.section)}" for m, p in differing]
    return UnidentifiedError(
        f"more than one method explains the file, and they keep different tensors: {'; '.join(kept)}",
        "Choose one:\n" + "\n".join(convert_call(options, m.name) for m, _ in differing),
    )
