"""A checkpoint as a detector's config needs it, read once by the code that opens the file. Imports no torch.

It reads names, shapes and what the file says of itself; no tensor is read, and nothing of MMDetection is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ckptconv.backbones import FAMILIES, TARGETS, Backbone, Dialect, TargetName
from ckptconv.backbones.interface import CANONICAL, PARTS
from ckptconv.conversion import provenance
from ckptconv.conversion.provenance import Origin
from ckptconv.errors import CkptconvError
from ckptconv.formats.interface import Checkpoint
from ckptconv.methods import registry
from ckptconv.methods.interface import Method
from ckptconv.planning.heads import settle_heads
from ckptconv.planning.identify import choose, nearest
from ckptconv.planning.matching import Move, translate
from ckptconv.planning.options import Options
from ckptconv.planning.plan_search import Planner
from ckptconv.rules import keep
from ckptconv.spec import DTYPES, Section, StateSpec, TensorSpec

_SECTION = "state_dict"
"""Where mmengine looks for weights; in a file without it, at the top (`mmengine/runner/checkpoint.py`, 0.10.7)."""
_SECTION_OF_VITDET = "model"
"""Where ViTDet looks: a file that ckptconv wrote for it has them there."""

_BUILT: tuple[TargetName, ...] = ("timm", "transformers")
_ANY: TargetName = "official"
"""Names for a network as it is. A file for timm or transformers does not tell all that these must know, such as a Swin
V2's windows."""


@dataclass(frozen=True)
class Converted:
    """What a file is for a detector.

    ``section`` is where the weights are looked for. ``origin`` is what the file says of itself, None if ckptconv did
    not write it. ``backbone`` is the network of a file that ckptconv wrote; None where its names are not a network's,
    and then ``error`` says why.
    """

    section: str
    origin: Origin | None = None
    backbone: Backbone | None = None
    error: CkptconvError | None = None

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> Converted:
        """Read an open file. A file that ckptconv did not write gives its section alone."""
        origin, tree = provenance.origin(checkpoint), checkpoint.tree
        sections = (_SECTION, _SECTION_OF_VITDET) if origin else (_SECTION,)
        section = next((s for s in sections if isinstance(tree, Mapping) and s in tree), "")
        if origin is None:
            return cls(section)
        try:
            backbone = _backbone(checkpoint.sections, section, origin.target)
            return cls(section, origin, settle_heads(backbone, None, _told(backbone, origin.num_heads))[0])
        except CkptconvError as error:
            return cls(section, origin, error=error)

    @property
    def dialect(self) -> Dialect:
        """The names that the file has for its network."""
        known = self.origin and self.backbone and self.origin.target in FAMILIES[self.backbone.family].targets
        return self.backbone.dialect(self.origin.target) if known and self.backbone and self.origin else CANONICAL

    @property
    def fresh(self) -> tuple[str, ...]:
        """Patterns of names that the target's network has and no converted file fills; () for any other file."""
        return self.dialect.fresh


def _told(backbone: Backbone, heads: int | None) -> int | None:
    """The number of heads that a file says, where its tensors do not show it."""
    shown = FAMILIES[backbone.family].heads_shown
    return heads if shown is not None and not shown(backbone) else None


def _backbone(sections: Mapping[str, Section], section: str, target: str) -> Backbone:
    """The network of a converted file, from its names: canonical ones, or those that ``target`` has for them.

    Raises VerdictError or UsageError where they are not a network's.
    """
    options = Options(section=section)
    unchanged = [keep("{key...}", "{key...}")]
    plan = nearest(sections, unchanged, options).plan
    if not plan.complete and not _has_names_of(target, sections[section].tensors, plan.backbone):
        # in the target's own names, or what another target has no entry for would be dropped
        methods = _lenient(registry.methods().values())
        explaining = (
            plan
            for name in (target if target in TARGETS else None, *((_ANY,) if target in _BUILT else ()))
            for _, plan in Planner(sections, replace(options, target=name)).explaining(methods)[:1]
        )
        whole = next((plan for plan in explaining if not plan.dropped), None)
        plan = whole or choose(sections, unchanged, options).plan
    assert plan.backbone is not None
    return plan.backbone


def _lenient(methods: Iterable[Method]) -> list[Method]:
    """The methods that 'auto' may choose, for files that lack what their sources lacked: convert accepted that."""
    return [
        replace(method, layouts=tuple(replace(layout, without=PARTS) for layout in method.layouts))
        for method in methods
        if method.guess
    ]


def _has_names_of(target: str, state: StateSpec, backbone: Backbone | None) -> bool:
    """Whether these are exactly the names and shapes that ``target`` has for this network."""
    if backbone is None or target not in FAMILIES[backbone.family].targets:
        return False
    unchanged = keep("{key...}", "{key...}")
    moves = [
        Move((name,), name, None, TensorSpec(shape, DTYPES["float32"]), unchanged)
        for name, shape in backbone.entries().items()
    ]
    expected = {move.target: move.spec.shape for move in translate(moves, backbone.dialect(target).rules).moves}
    return {name: spec.shape for name, spec in state.items()} == expected
