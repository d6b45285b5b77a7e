"""What a converted file says of itself: from which method, network and pixels it came. Written by `convert`.

It is JSON: in a torch file the text at ``meta.ckptconv``, in safetensors at ``__metadata__.ckptconv``. Before,
torch files held it as a dictionary, whose floats torch 1.13 refuses under ``weights_only``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ckptconv._version import __version__
from ckptconv.backbones import Backbone
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.interface import Hyperparameters, PositionResampling, TimmModel, TransformersModel, described
from ckptconv.backbones.xcit import Xcit
from ckptconv.conversion.periods import own_periods
from ckptconv.errors import UsageError
from ckptconv.fields import is_name
from ckptconv.formats.interface import Checkpoint
from ckptconv.formats.records import Blob
from ckptconv.methods.interface import Licence, Pixels, Release
from ckptconv.planning.heads import HeadsFrom
from ckptconv.planning.plan import Plan
from ckptconv.planning.same_result import Match
from ckptconv.sources.file import Transfer

KEY = "ckptconv"
_TIMM, _TRANSFORMERS = "timm", "transformers"
_LONGEST = 1 << 20
_LONGEST_TEXT = 300
"""Characters of a licence's name, address or restrictions. What is longer, ckptconv did not write."""


def describe(
    checkpoint: Checkpoint,
    match: Match,
    settled: Plan,
    dtype: str | None,
    checksums: int,
    release: Release | None = None,
    licence: Licence | None = None,
) -> dict[str, object]:
    """What the output of a plan says of itself: plain values only, and nothing that differs from run to run.

    ``release`` is the published file that the source is, ``licence`` that of its weights; None where it is not known.
    """
    assert settled.backbone is not None
    network = described(settled.backbone) | {"heads_from": settled.heads_from}
    rgb = settled.backbone.in_channels == 3 and settled.selected_channels is None
    pixels = match.method.pixels if rgb else None
    if match.method.eps is not None and not isinstance(settled.backbone, ConvNeXt):  # whose code has 1e-6, DINOv3's too
        network["eps"] = match.method.eps
    resampling = match.method.resampling(settled.backbone)
    if resampling is not None:
        network["position_resampling"] = vars(resampling)
    periods = own_periods(checkpoint, settled)
    if periods is not None:
        network["rope_periods"] = list(periods)
    norm = _norm_of(match, settled.backbone)
    if norm is not None:
        network["norm"] = norm
    model = settled.backbone.timm_model() if settled.target == _TIMM else None
    theirs = settled.backbone.transformers_model() if settled.target == _TRANSFORMERS else None
    source: dict[str, object] = {
        "name": checkpoint.path.name,
        "format": checkpoint.format,
        "bytes": checkpoint.size,
    }
    if release is not None:
        source["release"] = release.name
    if checkpoint.transfers:
        source["fetched"] = [trust(transfer) for transfer in checkpoint.transfers]
        source["checksums"] = checksums
    return {
        "version": __version__,
        "method": match.method.name,
        "also": list(match.also),
        "layout": settled.layout,
        "section": settled.section,
        "target": settled.target,
        "source": source,
        "backbone": {"name": settled.backbone.name, **network},
        "pixels": {"mean": list(pixels.mean), "std": list(pixels.std), "order": pixels.order} if pixels else None,
        "tensors": len(settled.moves),
        "dropped": len(settled.dropped),
        "dtype": dtype,
        **({"licence": vars(licence)} if licence else {}),
        **({"timm": vars(model)} if model else {}),
        **({"transformers": _class_and_config(theirs, network)} if theirs else {}),
        **({"channels": list(settled.selected_channels.channels)} if settled.selected_channels else {}),
        **({"resized": [str(one) for one in settled.resized]} if settled.resized else {}),
    }


def _norm_of(match: Match, backbone: Backbone) -> bool | None:
    """Whether the method takes the map of this network after its last norm.

    None if no one states it, if the methods that the file may be of differ, and for a network without such a norm.
    """
    if backbone.token_dim is None or isinstance(backbone, Xcit) or not getattr(backbone, "final_norm", False):
        return None  # the last norm of an XCiT is the class token's
    stated = {method.norm for method in (match.method, *match.others)} - {None}
    return stated.pop() if len(stated) == 1 else None


def _class_and_config(model: TransformersModel, network: Mapping[str, object]) -> dict[str, object]:
    """A class of transformers and its config, with the epsilon that the method states."""
    eps = network.get("eps")
    usual = "hidden_size" in model.config or "layer_norm_eps" in model.config
    stated = {"layer_norm_eps": eps} if isinstance(eps, float) and usual else {}
    return {"class": model.name, "config": {**model.config, **stated}}


def trust(transfer: Transfer) -> dict[str, object]:
    """What vouches for a file that was fetched: nothing in it differs while the file and the question are the same."""
    return {
        "address": transfer.address,
        "bytes": transfer.size,
        "version": transfer.version,
        "whole": transfer.whole,
        "published": transfer.published,
        "hash_checked": transfer.hash_checked,
    }


@dataclass(frozen=True)
class Origin:
    """What is read back: the method's name, whose names the tensors have, the pixels.

    ``selected_channels`` says that a user chose the channels: even three of them need not be red, green and blue.
    ``timm`` is how timm builds the network; None for another target. ``licence`` is that of the weights; None where
    the file does not say it. ``also`` are methods whose files have the same names: where there are any, the file may be
    of one of them. ``num_heads`` are the attention heads that `convert` took; None if none are known, and for a network
    of stages whose tensors show them. ``heads_from`` is where that number is from; '' where the file does not say it.
    """

    method: str
    target: str
    pixels: Pixels | None
    hyperparameters: Hyperparameters
    num_heads: int | None = None
    selected_channels: bool = False
    timm: TimmModel | None = None
    licence: Licence | None = None
    also: tuple[str, ...] = ()
    heads_from: HeadsFrom | Literal[""] = ""


def origin(checkpoint: Checkpoint) -> Origin | None:
    """What a file says of its origin; None if ckptconv did not write it. Values that ckptconv never writes count so."""
    found = statement(checkpoint)
    try:
        method, target = found["method"], found["target"]
        pixels = _pixels(found["pixels"])
        network = found.get("backbone", {})
        stated, heads, heads_from = _hyperparameters(network), _heads(network), _heads_from(network)
        model, also = _timm(found.get("timm")), tuple(found.get("also", ()))
        licence = _licence(found.get("licence"))
    except (KeyError, TypeError, ValueError, UsageError):
        return None
    if not all(map(is_name, (method, target, *also))):
        return None
    return Origin(method, target, pixels, stated, heads, bool(found.get("channels")), model, licence, also, heads_from)


def licence_of(checkpoint: Checkpoint) -> Licence | None:
    """The licence that a file which ckptconv wrote says; None for any other file."""
    said = origin(checkpoint)
    return said.licence if said else None


def statement(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The JSON that a file has for ckptconv, as it is: unchecked. {} if there is none."""
    meta = checkpoint.tree.get("meta") if isinstance(checkpoint.tree, Mapping) else None
    said: Any = checkpoint.metadata.get(KEY) or (meta.get(KEY) if isinstance(meta, Mapping) else None)
    if isinstance(said, Blob) and said.kind == "str" and said.length <= _LONGEST:
        said = said.read(checkpoint.sources[0])
    if isinstance(said, str):
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            return {}
    return said if isinstance(said, Mapping) else {}


def _heads(said: Mapping[str, Any]) -> int | None:
    heads = said.get("num_heads", said.get("heads"))  # 0.1.0 wrote "heads"
    if heads is None or isinstance(heads, list):  # one for each stage, as the tensors tell
        return None
    if type(heads) is not int or not 0 < heads < 1000:
        raise ValueError("no number of heads")
    return heads


def _heads_from(said: Mapping[str, Any]) -> HeadsFrom | Literal[""]:
    return next((known for known in get_args(HeadsFrom) if known == said.get("heads_from")), "")


def _hyperparameters(said: Any) -> Hyperparameters:
    if not isinstance(said, Mapping):
        raise TypeError("no backbone")
    eps, norm = said.get("eps"), said.get("norm")
    if (eps is not None and (type(eps) is not float or not 0 < eps < 1)) or type(norm) not in (bool, type(None)):
        raise ValueError("no hyperparameters")
    resampling, periods = said.get("position_resampling"), said.get("rope_periods")
    return Hyperparameters(
        eps,
        None if resampling is None else PositionResampling(**resampling),
        None if type(periods) is not list else tuple(map(float, periods)),  # a number: how many the network has
        norm,
    )


def _timm(said: Any) -> TimmModel | None:
    if said is None:
        return None
    name, arguments = said["name"], said["arguments"]
    if not is_name(name) or not isinstance(arguments, dict) or not all(map(_is_size, arguments.items())):
        raise ValueError("no model of timm")
    return TimmModel(name, arguments)


def _is_size(argument: tuple[str, Any]) -> bool:
    """Whether an argument describes a network: a number, a switch, or a list of numbers. A text could name a file."""
    name, value = argument
    numbers = value if isinstance(value, list) else [value]
    return is_name(name) and all(one is None or isinstance(one, int | float) for one in numbers)


def _licence(said: Any) -> Licence | None:
    if said is None:
        return None
    licence = Licence(said["name"], said["url"], said["restrictions"])
    if any(len(text) > _LONGEST_TEXT for text in vars(licence).values()):
        raise ValueError("no licence")
    return licence


def _pixels(said: Any) -> Pixels | None:
    if said is None:
        return None
    return Pixels(said["mean"], said["std"], said["order"])
