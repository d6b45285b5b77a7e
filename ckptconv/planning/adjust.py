"""A plan for other inputs than the file's own: other channels, image size, patch size or element type. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptconv.arguments import argument
from ckptconv.backbones import FAMILIES, Backbone
from ckptconv.backbones.image_size import Size
from ckptconv.backbones.interface import Dialect
from ckptconv.errors import UsageError
from ckptconv.methods.interface import Method
from ckptconv.ops import cast, compose, select_channels
from ckptconv.planning.heads import settle_heads
from ckptconv.planning.matching import Move
from ckptconv.planning.options import Options
from ckptconv.planning.plan import Plan, Resized, SelectedChannels
from ckptconv.rules import Keep
from ckptconv.spec import DTYPES

if TYPE_CHECKING:
    from ckptconv.planning.same_result import Match


def keep_channels(
    backbone: Backbone, moves: Sequence[Move], channels: tuple[int, ...]
) -> tuple[Backbone, list[Move], SelectedChannels | None]:
    """The network for these channels of its images, and its moves. Raises UsageError for channels it does not have."""
    stem, had = FAMILIES[backbone.family].stem, backbone.in_channels
    if stem not in {move.target for move in moves}:
        return backbone, list(moves), None
    asked = argument("channels", channels)
    if max(channels) > had:
        message = f"{asked}: {backbone.name} takes {had} channel{'s' * (had != 1)}"
        raise UsageError(message, "They are numbered from 1.", "channels")
    if channels == tuple(range(1, had + 1)):
        message = f"{asked} changes nothing: these are the channels of {backbone.name} already"
        raise UsageError(message, "Leave it out.", "channels")
    op, changed = select_channels(channels), []
    for move in moves:
        if move.target == stem and len(move.spec.shape) > 1 and move.spec.shape[1] == had:
            whole = compose(op, [(move.op, len(move.sources))])
            move = replace(move, op=whole, spec=op.spec([move.spec]))
        changed.append(move)
    return replace(backbone, in_channels=len(channels)), changed, SelectedChannels(stem, channels, had)


def translated_name(dialect: Dialect, name: str) -> str:
    """What a dialect calls one tensor of the network, one that it keeps under one name."""
    targets = (rule.target_of(name) for rule in dialect.rules if isinstance(rule, Keep))
    return next((target for target in targets if target is not None), name)


def resize_plan(plan: Plan, size: Size, method: Method | None = None) -> Plan:
    """The plan for images or patches of another size. Raises UsageError where no tensor changes with it.

    A table of positions is resized as the method's own code does it.
    """
    assert plan.backbone is not None
    resize = FAMILIES[plan.backbone.family].resize
    if resize is None:
        raise UsageError(
            f"{size.asked} changes nothing: {plan.backbone.name} has no table of positions and no patches to resize",
            "Leave it out: it takes images of any size.",
            size.parameter,
        )
    backbone, changes = resize(plan.backbone, size)
    moves, resized = {move.target: move for move in plan.moves}, []
    for change in changes:
        move = moves[translated_name(plan.dialect, change.name)]
        resizing = change.op(move.spec, method.resampling(backbone) if method else None)
        op = compose(resizing, [(move.op, len(move.sources))])
        moves[move.target] = replace(move, op=op, spec=resizing.spec([move.spec]))
        resized.append(Resized(move.target, change.old, change.new))
    return replace(plan, backbone=backbone, moves=tuple(moves.values()), resized=tuple(resized))


def adjust_plan(match: Match, options: Options) -> Plan:
    """The plan for the heads, the image size, the patch size and the element type that are asked for."""
    assert match.plan.backbone is not None
    backbone, heads_from = settle_heads(match.plan.backbone, match.method.num_heads, options.num_heads)
    plan = replace(match.plan, backbone=backbone, heads_from=heads_from)
    plan = resize_plan(plan, options.size, match.method) if options.size.asked else plan
    return plan if options.dtype is None else cast_plan(plan, options.dtype)


def cast_plan(plan: Plan, dtype: str) -> Plan:
    """The plan with every floating tensor rounded to ``dtype``. Raises UsageError for a type that cannot be cast."""
    cast(DTYPES["float32"], dtype)  # refuses an unknown type even where nothing needs casting
    moves = []
    for move in plan.moves:
        if move.spec.dtype.is_float and move.spec.dtype.name != dtype:
            rounded = cast(move.spec.dtype, dtype)
            op = compose(rounded, [(move.op, len(move.sources))])
            move = replace(move, op=op, spec=rounded.spec([move.spec]))
        moves.append(move)
    return replace(plan, moves=tuple(moves))
