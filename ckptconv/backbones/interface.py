"""The types of the table of backbones: networks that are recognised by the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol

from ckptconv import fields as checks
from ckptconv.backbones.image_size import Change, Size
from ckptconv.rules import Rule
from ckptconv.spec import StateSpec

TargetName = Literal["detectron2", "mmdet", "mmpretrain", "official", "timm", "torchvision", "transformers", "vitdet"]
"""Whose names a network can be written with."""


@dataclass(frozen=True)
class Dialect:
    """How a target names a network: rules from the canonical names; none if it uses those.

    ``section`` is the key of a torch file where the target's loader looks. ``fresh`` are patterns of names that the
    target's network has and no self-supervised file fills.
    """

    rules: tuple[Rule, ...] = ()
    section: str = "state_dict"
    fresh: tuple[str, ...] = ()


CANONICAL = Dialect()


def channels_suffix(count: int) -> str:
    """The end of a network's name for images with other than three channels; '' for three."""
    return "" if count == 3 else f", images of {count} channel{'s' * (count != 1)}"


@dataclass(frozen=True)
class MissingPart:
    """A part that networks of a family usually have and this one does not: its entry, and a sentence about it."""

    part: str
    entry: str
    what: str


PARTS = (
    *("attention_pooling", "class_token", "layer_scale", "norm", "patch_norm", "positions", "qkv_bias", "registers"),
    "stages",
)
"""Parts that a network may lack if its layout says so. Otherwise a file without one counts as truncated."""


class Backbone(Protocol):
    """A network of a family, read back from shapes: a frozen dataclass whose fields describe it.

    A fact has one name in every family: ``embed_dim``, ``depth`` (``depths`` where stages differ), ``num_heads``,
    ``hidden_dim``, ``patch_size``, ``in_channels``, ``grid_size``, ``final_norm``.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    derived: ClassVar[tuple[str, ...]]
    """Properties that `described` lists besides the fields."""

    @property
    def in_channels(self) -> int:
        """Channels of the images that it takes."""

    @property
    def token_dim(self) -> int | None:
        """Channels of the tokens in all blocks of a plain transformer; None for a network of stages."""

    @property
    def family(self) -> str:
        """The name of its family in the table."""

    @property
    def name(self) -> str:
        """Its name for people: 'ResNet-50'."""

    def entries(self) -> Mapping[str, tuple[int, ...]]:
        """Every canonical name with its shape, in the network's own order."""

    @property
    def missing_parts(self) -> tuple[MissingPart, ...]:
        """The parts that its family usually has and it does not."""

    @property
    def unusual(self) -> str:
        """A sentence if no published network of its family and width has its depth; '' if one has."""

    @property
    def partial(self) -> bool:
        """Whether networks of its family and width are published, and none of its depth."""

    def optional(self, name: str) -> bool:
        """Whether a network works without this entry."""

    def obstacle(self, target: str) -> str:
        """Why ``target`` cannot hold this network, and what works instead; '' if it can."""

    def dialect(self, target: str) -> Dialect:
        """How ``target``, one of its family's, names it."""

    def timm_model(self) -> TimmModel | None:
        """How timm builds it; None if no class of timm is this network."""

    def transformers_model(self) -> TransformersModel | None:
        """How transformers builds it; None if none of its classes is this network."""


def described(backbone: Backbone) -> dict[str, object]:
    """A network as plain values for JSON: family, fields and derived facts, each by its own name."""
    names = (*(one.name for one in fields(backbone)), *backbone.derived)
    values = ((name, getattr(backbone, name)) for name in names)
    return {"family": backbone.family} | {n: list(v) if isinstance(v, tuple) else v for n, v in values}


@dataclass(frozen=True)
class TimmModel:
    """How timm builds a network: ``timm.create_model(name, **arguments)``, without a classifier and without pooling.

    ``name`` is a published model of the network's class: that of its size where there is one, else the family's usual.
    ``arguments`` are those in which the network differs from ``name``: plain values of JSON.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TransformersModel:
    """How Hugging Face transformers builds a network: the class ``name``, from its ``config``: plain values of JSON."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PositionResampling:
    """How a method's own code resizes its table of positions for images of another size.

    ``mode`` is that of ``torch.nn.functional.interpolate``, ``antialias`` and ``align_corners`` are its arguments.
    ``offset`` is what DINO's code adds to each side of the new grid before it divides by the old one; the table is then
    scaled by that factor. ``square`` resizes it to a square of the grid's longer side, and cuts off what is too much.
    """

    mode: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = False
    align_corners: bool = False
    offset: float = 0.0
    square: bool = False

    def __post_init__(self) -> None:
        checks.choice("mode", self.mode, ("bicubic", "bilinear"))
        checks.boolean("antialias", self.antialias)
        checks.boolean("align_corners", self.align_corners)
        checks.boolean("square", self.square)
        offset = checks.number("offset", self.offset) if self.offset else 0.0
        checks.set_fields(self, offset=offset)


@dataclass(frozen=True)
class Hyperparameters:
    """What a method states of a transformer and no tensor tells. None is the usual value.

    ``eps`` is the epsilon of its layer norms. ``rope_periods`` are the periods of rotary position embeddings, where
    they are not those that the target computes. ``norm`` is whether the method's own detectors take the last map after
    the network's last norm.
    """

    eps: float | None = None
    position_resampling: PositionResampling | None = None
    rope_periods: tuple[float, ...] | None = None
    norm: bool | None = None


@dataclass(frozen=True)
class Family:
    """A family of networks. ``read`` gives the member that fits names and shapes best, or None if none is near.

    ``targets`` are what its members can be written for: the usual one first.
    ``blocks`` are expressions for how the canonical names of one block, or of one stage, start.
    ``stem`` is the kernel that sees the image, by its canonical name; its second axis is the image's channels.
    ``resize`` gives a member for other images or patches, and what changes; it raises UsageError where nothing does.
    None for a family that takes images of any size as it is.
    ``heads_shown`` says whether a member's tensors tell how many attention heads it has; None for a family without
    attention. ``num_heads`` of a member whose tensors do not is an assumption from its width, or None. It is the usual
    number where the width is one of ``usual_widths``, those of published networks.
    """

    name: str
    read: Callable[[StateSpec], Backbone | None]
    targets: tuple[TargetName, ...]
    blocks: tuple[str, ...]
    stem: str
    resize: Callable[[Any, Size], tuple[Backbone, tuple[Change, ...]]] | None = None
    heads_shown: Callable[[Any], bool] | None = None
    usual_widths: frozenset[int] = frozenset()
