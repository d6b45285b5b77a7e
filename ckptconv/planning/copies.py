"""Where a file holds the network of a plan once more, such as the momentum encoder next to the query encoder.

Pure: it sees names and shapes, and no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ckptconv.methods.interface import Method
from ckptconv.planning.networks_elsewhere import Alternative, alternative_at
from ckptconv.planning.plan import Plan
from ckptconv.planning.plan_search import Planner
from ckptconv.sections import BELOW, section_at
from ckptconv.spec import Section
from ckptconv.wrappers import wrapper_of

_NUMBER = re.compile("[0-9]+")


@dataclass(frozen=True)
class Copy:
    """The same network once more: its section, the prefix of its names, and how to convert it, if that is known."""

    section: str
    prefix: str
    alternative: Alternative | None

    @property
    def where(self) -> str:
        """For a sentence: "at the top level under 'module.encoder_k.'"."""
        return Alternative("", self.section, self.prefix, None, True).where


def _goes_on(section: Section, start: str, names: Iterable[str]) -> bool:
    """Whether other names under a prefix differ from these in numbers only: then the network there is larger."""
    kinds = {_NUMBER.sub("*", start + name) for name in names}
    more = section.tensors.keys() - {start + name for name in names}
    return any(name.startswith(start) and _NUMBER.sub("*", name) in kinds for name in more)


def copies(planner: Planner, plan: Plan, methods: Iterable[Method]) -> tuple[Copy, ...]:
    """Where the file holds the network of a complete plan again: other tensors with the same names and shapes."""
    assert plan.backbone is not None
    needed = [move.sources for move in plan.moves if not plan.backbone.optional(move.target)]
    sources = [name for names in needed for name in names]
    taken = section_at(planner.sections, plan.section)
    if taken is None or not sources or plan.section.endswith(BELOW):
        return ()
    low, high = min(sources), max(sources)  # all names share the prefix that these two share
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    common = low[: low.rfind(".", 0, shared) + 1]
    shapes = {name[len(common) :]: taken.tensors[name].shape for name in sources}
    first = next(iter(shapes))
    found: list[Copy] = []
    for path, section in planner.sections.items():
        for name, spec in section.tensors.items():
            start = name[: -len(first)]
            if spec.shape != shapes[first] or not name.endswith(first) or (start and start[-1] != "."):
                continue
            others = (section.tensors.get(start + rest) for rest in shapes)
            same = all(o is not None and o.shape == shape for o, shape in zip(others, shapes.values(), strict=True))
            if same and (path, start) != (plan.section, common):
                start = "" if start == wrapper_of(section.tensors) else start
                other = alternative_at(planner, path, start, methods)
                larger = _goes_on(section, start, shapes) if other is None else other.network != plan.backbone.name
                if not larger:
                    found.append(Copy(path, start, other))
    return tuple(found)
