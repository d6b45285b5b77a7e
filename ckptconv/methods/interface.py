"""The types of the table of methods. A method is data: rules and facts with their sources, never code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

from ckptconv import fields
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.interface import PARTS, PositionResampling
from ckptconv.errors import UsageError, unknown
from ckptconv.rule_index import RuleIndex
from ckptconv.rules import RULES, Drop, Keep, Rule

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_CAPTURED = re.compile(r"\{\w+")
_NUMBERS: dict[object, int] = {}
_RESERVED = ("auto",)
"""Names that no method may have."""
_RULES = "Rules are made with keep, drop, fuse and split; a star puts those of under(…) into the list."


@dataclass(frozen=True)
class Pixels:
    """How a network's images were normalised: mean and standard deviation per channel, from 0 to 255, and the order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: str = "RGB"

    def __post_init__(self) -> None:
        fields.set_fields(self, mean=fields.three_numbers("mean", self.mean), std=fields.three_numbers("std", self.std))
        if min(self.std) <= 0:
            raise fields.invalid("std", "three numbers above 0", self.std)
        fields.choice("order", self.order, ("RGB", "BGR"))


IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = Pixels((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
CLIP = Pixels((122.7709383, 116.7460125, 104.0937362), (68.5005327, 66.6321579, 70.3231630))
UNIT = Pixels((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
"""From 0 to 1, as `ToTensor` gives them without a normalisation after it."""


@dataclass(frozen=True)
class Licence:
    """The licence of weights: an SPDX identifier, or the name that the page at ``url`` prints.

    ``restrictions`` is what it forbids, in one line; '' if it forbids nothing.
    """

    name: str
    url: str = ""
    restrictions: str = ""

    def __post_init__(self) -> None:
        fields.text("name", self.name, empty=False)
        fields.page("url", self.url)
        fields.text("restrictions", self.restrictions)

    def __str__(self) -> str:
        return f"{self.name}, {self.restrictions}" if self.restrictions else self.name


@dataclass(frozen=True)
class Release:
    """A file that the method's authors published, and the network in it.

    ``md5`` and ``sha256`` are the digests, often shortened, that they print next to it. ``licence`` is that of the
    weights, see `Licence`; '' is what no one states. ``restrictions`` is what it forbids.
    ``login`` is the page where people get the file, for one that is not given away at its ``url`` without a login.
    """

    name: str
    url: str
    md5: str = ""
    sha256: str = ""
    backbone: str = ""
    licence: str = ""
    licence_url: str = ""
    restrictions: str = ""
    login: str = ""

    def __post_init__(self) -> None:
        fields.name("name", self.name)
        fields.text("url", self.url, empty=False)
        fields.url("url", self.url)
        for field_name in ("licence_url", "login"):
            fields.page(field_name, getattr(self, field_name))
        fields.hex_digits("md5", self.md5, 32)
        fields.hex_digits("sha256", self.sha256, 64)
        for field_name in ("backbone", "licence", "restrictions"):
            fields.text(field_name, getattr(self, field_name))

    @property
    def terms(self) -> Licence | None:
        """The licence; None if no one states it."""
        return Licence(self.licence, self.licence_url, self.restrictions) if self.licence.strip() else None

    @property
    def file_name(self) -> str:
        """The name under which the authors publish the file."""
        return self.url.rpartition("/")[2]


MAE_RESAMPLING = PositionResampling()
"""util/pos_embed.py of facebookresearch/mae, from DeiT: bicubic to a size, for fine-tuning."""
DINO_RESAMPLING = PositionResampling(offset=0.1)
"""interpolate_pos_encoding in vision_transformer.py of facebookresearch/dino: bicubic by a factor."""


class Published(Sequence[Release]):
    """The releases of a built-in method: its table in `releases.toml`, which is read when somebody asks for one."""

    def __init__(self, method: str) -> None:
        self._method = method

    @cached_property
    def _rows(self) -> tuple[Release, ...]:
        from ckptconv.methods.releases import built_in

        return built_in()[self._method]

    @overload
    def __getitem__(self, at: int) -> Release: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Release]: ...
    def __getitem__(self, at: int | slice) -> Release | Sequence[Release]:
        return self._rows[at]

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Published) and other._method == self._method:
            return True
        return self._rows == tuple(other) if isinstance(other, Published | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return f"Published({self._method!r})"


@dataclass(frozen=True)
class Layout:
    """One way in which a method's files are laid out.

    ``sections`` are dotted paths to the mapping that holds the weights, in order of preference: '' is the top level,
    'PATH...' everything below a path, each tensor under its own path from there.
    Rules see names without wrappers: the prefixes of DistributedDataParallel and torch.compile, and the segments that
    compiling and activation checkpointing insert, are removed first.
    ``families`` are the network families of these files; () is all. Bare names alone could be of any family.
    ``without`` are parts that these networks may lack and most of their family have; see `PARTS` of the backbones.
    """

    rules: tuple[Rule, ...]
    sections: tuple[str, ...]
    title: str = "checkpoint"
    families: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rules: tuple[Rule, ...] = fields.items("rules", self.rules, RULES, "rules", False, _RULES)
        _require_reachable(rules)
        fields.text("title", self.title, empty=False)
        families = fields.texts("families", self.families)
        for family in families:
            if family not in FAMILIES:
                error = unknown("network family", family, FAMILIES)
                raise UsageError(f"'families': {error.message}", error.hint)
        without = fields.texts("without", self.without)
        for part in without:
            fields.choice("without", part, PARTS)
        for rule in rules:
            if isinstance(rule, Drop) and rule.instead:
                fields.choice("instead", rule.instead, PARTS)
        sections = fields.sections("sections", self.sections)
        fields.set_fields(self, rules=rules, sections=sections, families=families, without=without)

    @cached_property
    def number(self) -> int:
        """Equal for two layouts that make the same plans: their titles and sections may differ."""
        return _NUMBERS.setdefault((self.rules, self.families, self.without), len(_NUMBERS))

    @cached_property
    def index(self) -> RuleIndex:
        """Its rules, ready to be asked for the one that takes a name."""
        return RuleIndex(self.rules)

    @cached_property
    def keeps_names(self) -> bool:
        """Whether the names that it keeps are already the family's own."""
        return all(
            isinstance(r, Drop) or (isinstance(r, Keep) and r.op is None and r.source.text == r.target.text)
            for r in self.rules
        )

    @cached_property
    def first_segments(self) -> frozenset[str] | None:
        """The first segments of all names that its rules can match; None if a rule matches any."""
        firsts = [source.ends[0] for rule in self.rules for source in rule.sources]
        return None if None in firsts else frozenset(first for first in firsts if first is not None)


def _require_reachable(rules: Sequence[Rule]) -> None:
    """Refuses a rule that can never match: an earlier rule takes the same names, with captures of any name."""
    seen: set[str] = set()
    for source in (source.text for rule in rules for source in rule.sources):
        names = _CAPTURED.sub("{", source) if "{" in source else source
        if names in seen:
            raise UsageError(
                f"'rules' has two rules for '{source}'", "The first takes every name. Leave out the other."
            )
        seen.add(names)


@dataclass(frozen=True)
class Method:
    """A self-supervised method, or a framework's naming, and how to get its backbone out.

    ``aliases`` are other names for it. Case, hyphens and underscores do not matter in any name. An alias that several
    methods have stands for all of them: the file decides.
    ``guess`` is False for a method that only its name selects, never `auto`, such as DINO's student.
    ``pixels`` is None if no one states how images were normalised. ``num_heads`` and ``eps`` are what no tensor tells:
    the attention heads and the epsilon of layer norms, where they differ from the family's usual ones.
    ``position_resampling`` is how its own code resizes the positions of a plain transformer, and
    ``position_resampling_with_registers`` those of one with registers, where that differs. None if no code states it.
    ``norm`` is whether its own detectors, or its features for dense tasks where it has none, take the last map of a
    plain transformer after the last norm. None if no code states it, and then the map is normed.
    ``num_registers`` is how many register tokens its networks have, where that tells them from those of other methods
    with the same names: `auto` takes it for files with so many, and for no others. None does not tell.
    ``converted`` are layouts of other methods to which this method's own repository converts its files. They are tried
    if the method is named and none of its own layouts fits. `auto` names the method whose names such a file has.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    paper: str = ""
    repository: str = ""
    pixels: Pixels | None = None
    releases: Sequence[Release] = field(default=(), hash=False)
    guess: bool = True
    num_heads: int | None = None
    eps: float | None = None
    num_registers: int | None = None
    position_resampling: PositionResampling | None = None
    position_resampling_with_registers: PositionResampling | None = None
    norm: bool | None = None
    aliases: tuple[str, ...] = ()
    converted: tuple[Layout, ...] = ()

    def __post_init__(self) -> None:
        fields.name("name", self.name)
        if fields.folded(self.name) in _RESERVED:
            raise UsageError(f"'name' may not be '{self.name}'", "It asks to find the method. Choose another name.")
        aliases = fields.texts("aliases", self.aliases)
        for alias in aliases:
            fields.name("aliases", alias)
        fields.unique("aliases", [fields.folded(name) for name in (self.name, *aliases)])
        fields.text("title", self.title, empty=False)
        fields.url("paper", self.paper)
        fields.text("repository", self.repository)
        if self.repository and not _REPOSITORY.fullmatch(self.repository):
            raise fields.invalid("repository", "OWNER/NAME on GitHub", self.repository)
        layouts = fields.items("layouts", self.layouts, Layout, "Layout", empty=False)
        fields.unique("layouts", [layout.title for layout in layouts])
        converted = fields.items("converted", self.converted, Layout, "Layout")
        releases = self.releases
        if not isinstance(releases, Published):
            releases = fields.items("releases", releases, Release, "Release")
            fields.unique("releases", [release.name for release in releases])
        if self.pixels is not None and not isinstance(self.pixels, Pixels):
            raise fields.invalid("pixels", "Pixels or None", self.pixels)
        for field_name in ("position_resampling", "position_resampling_with_registers"):
            resampling = getattr(self, field_name)
            if resampling is not None and not isinstance(resampling, PositionResampling):
                raise fields.invalid(field_name, "PositionResampling or None", resampling)
        fields.boolean("guess", self.guess)
        if self.norm is not None:
            fields.boolean("norm", self.norm)
        num_heads = None if self.num_heads is None else fields.integer("num_heads", self.num_heads, 1)
        eps = None if self.eps is None else fields.number("eps", self.eps)
        registers = None if self.num_registers is None else fields.integer("num_registers", self.num_registers, 0)
        fields.set_fields(
            self,
            layouts=layouts,
            releases=releases,
            num_heads=num_heads,
            eps=eps,
            num_registers=registers,
            aliases=aliases,
            converted=converted,
        )

    @property
    def networks(self) -> tuple[str, ...]:
        """The families of networks of its layouts; () is any."""
        if not all(layout.families for layout in self.layouts):
            return ()
        return tuple(dict.fromkeys(family for layout in self.layouts for family in layout.families))

    def resampling(self, backbone: Backbone) -> PositionResampling | None:
        """How this network's positions are resized; None if it has none, and if no one states it."""
        if "pos_embed" not in backbone.entries():
            return None
        with_registers = getattr(backbone, "num_registers", 0) and self.position_resampling_with_registers
        return with_registers or self.position_resampling
