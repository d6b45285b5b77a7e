"""A converted checkpoint as a config needs it: network, method, pixels, fingerprint. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ckptconv.backbones import FAMILIES, TARGETS, Backbone
from ckptconv.backbones.interface import PARTS
from ckptconv.conversion.fingerprint import fingerprint
from ckptconv.conversion.provenance import origin
from ckptconv.conversion.transform import as_they_are
from ckptconv.errors import UsageError, VerdictError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.interface import Checkpoint
from ckptconv.methods import registry
from ckptconv.methods.interface import Method, Pixels
from ckptconv.mmdetection.config.backbone_args import Network, network
from ckptconv.mmdetection.hints import conversion, raw_method
from ckptconv.planning.candidates import Planner
from ckptconv.planning.identify import choose, nearest
from ckptconv.planning.matching import Move, spoken
from ckptconv.planning.plan import Options
from ckptconv.rules import keep
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.spec import DTYPES, Section, StateSpec, TensorSpec


@dataclass(frozen=True)
class Pretrained:
    """A converted checkpoint; ``path`` is where it is, as the user said it.

    ``picked`` says that its channels were chosen, and are perhaps no red, green and blue.
    """

    path: str
    format: str
    method: str
    backbone: Backbone
    network: Network
    pixels: Pixels | None
    fingerprint: str
    picked: bool = False

    @property
    def in_channels(self) -> int:
        """Those of the images that the network takes."""
        return self.backbone.in_channels

    @property
    def colour(self) -> bool:
        """Whether these are red, green and blue."""
        return self.in_channels == 3 and not self.picked


def section_of(checkpoint: Checkpoint) -> str:
    """Where the weights are looked for: by mmengine under 'state_dict' if there is such a thing, else at the top.

    ViTDet looks under 'model': a file that ckptconv wrote for it has them there.
    """
    tree = checkpoint.tree
    sections = ("state_dict", "model") if origin(checkpoint) else ("state_dict",)
    return next((s for s in sections if isinstance(tree, Mapping) and s in tree), "")


def pretrained(path: str | Path) -> Pretrained:
    """What a file that `convert` wrote says of itself, and what its tensors say.

    Raises UsageError for a file that ckptconv did not write, or wrote for another target, and for what is no file.
    """
    found, path = locate(path, Fetching()), str(path)
    if not isinstance(found.path, Path):
        raise UsageError(
            f"{found.label} is no file here, and a config names one that convert wrote",
            f"Convert it first: {conversion(found.label, None)[0]}",
        )
    with open_checkpoint(found.path) as checkpoint:
        said = origin(checkpoint)
        if said is None:
            raise _not_converted(path, checkpoint)
        section = section_of(checkpoint)
        backbone = read_back(checkpoint.sections, section, said.target)
        built = network(backbone, said.target, said.hyperparameters)
        if built is None and said.target != FAMILIES[backbone.family].targets[0]:
            raise UsageError(
                f"{path} was written for {said.target}, not for MMDetection",
                "Convert it again from its source, without --target.",
            )
        if built is None:
            raise UsageError(
                f"{backbone.name} knows relative positions for images of one size, and a detector's images differ",
                "Take a ViT with absolute positions, such as MAE's or DINO's.",
            )
        mark = fingerprint(as_they_are(section, checkpoint))
        return Pretrained(path, checkpoint.format, said.method, backbone, built, said.pixels, mark, said.picked)


def read_back(sections: Mapping[str, Section], section: str, target: str) -> Backbone:
    """The network of a converted file, from its names: canonical ones, or those that ``target`` has for them.

    Raises VerdictError where they are no network's.
    """
    options = Options(section=section)
    as_they_stand = [keep("{key...}", "{key...}")]
    plan = nearest(sections, as_they_stand, options).plan
    if not plan.complete and not _speaks(sections[section].tensors, plan.backbone, target):
        # in the target's own names, or what another has no place for would be dropped
        spoken_to = replace(options, target=target if target in TARGETS else None)
        found = Planner(sections, spoken_to).explaining(_lenient(registry.methods().values()))
        plan = found[0][1] if found and not found[0][1].dropped else choose(sections, as_they_stand, options).plan
    assert plan.backbone is not None
    return plan.backbone


def _lenient(methods: Iterable[Method]) -> list[Method]:
    """The methods that may be guessed, for files that lack what their sources lacked: that was settled with those."""
    return [
        replace(method, layouts=tuple(replace(layout, without=PARTS) for layout in method.layouts))
        for method in methods
        if method.guess
    ]


def _speaks(state: StateSpec, backbone: Backbone | None, target: str) -> bool:
    """Whether these are just the names and shapes that ``target`` has for this network."""
    if backbone is None or target not in FAMILIES[backbone.family].targets:
        return False
    itself = keep("{key...}", "{key...}")
    moves = [
        Move((name,), name, None, TensorSpec(shape, DTYPES["float32"]), itself)
        for name, shape in backbone.entries().items()
    ]
    spoken_of = {m.target: m.spec.shape for m in spoken(moves, backbone.dialect(target).rules).moves}
    return {name: spec.shape for name, spec in state.items()} == spoken_of


def fresh_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Patterns of what the target's network has of its own, beside a converted file; () for any other file."""
    said = origin(checkpoint)
    if said is None:
        return ()
    try:
        backbone = read_back(checkpoint.sections, section_of(checkpoint), said.target)
    except VerdictError:
        return ()
    known = said.target in FAMILIES[backbone.family].targets
    return backbone.dialect(said.target).fresh if known else ()


def _not_converted(path: str, checkpoint: Checkpoint) -> UsageError:
    method = raw_method(checkpoint)
    what = f"a raw checkpoint of {method.name}" if method else "no file of ckptconv: it says neither method nor network"
    return UsageError(f"{path} is {what}", f"Convert it first: {conversion(path, method)[0]}")
