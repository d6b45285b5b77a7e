"""What the table of methods is made of. A method is data: rules and facts with their sources, never code."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptconv.rules import Rule


@dataclass(frozen=True)
class Pixels:
    """What a network was fed: mean and standard deviation a channel on the 0-255 scale, and the channel order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: str = "RGB"


IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = Pixels((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
CLIP = Pixels((122.7709383, 116.7460125, 104.0937362), (68.5005327, 66.6321579, 70.3231630))
UNIT = Pixels((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
"""From 0 to 1, as `ToTensor` gives them where nothing normalises after it."""


@dataclass(frozen=True)
class Release:
    """A file that the method's authors published, and the network in it.

    ``md5`` and ``sha256`` are the digests, often shortened, that they print beside it.
    """

    name: str
    url: str
    md5: str = ""
    sha256: str = ""
    backbone: str = ""


@dataclass(frozen=True)
class Layout:
    """One way in which a method's files are laid out.

    ``sections`` are dotted paths to the mapping that holds the weights, in order of preference: '' is the top level,
    'PATH...' all that lies below a path, each tensor called by its own path from there.
    Rules speak of names without wrappers: what DistributedDataParallel or torch.compile put before every name of a
    section, and what compiling or checkpointing put into single names, is taken off before they are asked.
    ``families`` are the networks it is known for, where bare names would otherwise speak for any; () is all of them.
    """

    rules: tuple[Rule, ...]
    sections: tuple[str, ...]
    title: str = "checkpoint"
    families: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A self-supervised method, or a framework's naming, and how to get its backbone out.

    ``aliases`` are other names that people give it; case, hyphens and underscores do not matter in any name. An alias
    that several methods have stands for all of them: the file decides.
    ``guess`` is False for what only a person can want, such as DINO's student: reachable by name, never by `auto`.
    ``pixels`` is None where nobody states what the network was fed. ``heads`` and ``eps`` are what no
    tensor tells: attention heads, and the epsilon of layer norms, where they are not the family's usual ones.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    paper: str = ""
    repository: str = ""
    pixels: Pixels | None = None
    releases: tuple[Release, ...] = field(default=())
    guess: bool = True
    heads: int | None = None
    eps: float | None = None
    aliases: tuple[str, ...] = ()
