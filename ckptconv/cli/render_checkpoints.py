"""Prints what became of a checkpoint, and why a tensor goes where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ckptconv.backbones import FAMILIES
from ckptconv.backbones.interface import described
from ckptconv.cli import render, render_inspection, render_sources
from ckptconv.conversion.receipt import Receipt
from ckptconv.errors import shell_word
from ckptconv.inspection import Explanation, dropped_by_reason
from ckptconv.methods import NAMING_SCHEMES, registry
from ckptconv.methods.interface import MAE_RESAMPLING
from ckptconv.mmdetection.config.backbone_args import network
from ckptconv.planning.plan import Plan
from ckptconv.text import fold, section_label, size

_MOST_LINES = 40
_SCHEMA = 2  # of convert and inspect: the options that lead to a network name its method


def receipt(done: Receipt, as_json: bool) -> None:
    if done.dangerous:
        render.note(
            f"warning: unpickling {done.source} would have called {', '.join(done.dangerous)}. Nothing was run here; "
            "do not give this file to torch.load(weights_only=False)."
        )
    if as_json:
        render.dump("convert", _receipt_data(done), schema=_SCHEMA)
        return
    plan = done.plan
    backbone = plan.backbone
    assert backbone is not None
    render.row("read", f"{done.source} ({done.source_format}, {size(done.source_size)}), {section_label(plan.section)}")
    render_sources.fetched(done.transfers, done.checksums)
    own = bool(done.release) and done.release in [release.name for release in done.method.releases]
    how = "found by its names" if not done.method_named else "the release's own" if own else "as asked"
    if done.also and not done.method.paper:  # a naming scheme, and methods that publish files in it
        render.row("method", f"{' or '.join((*done.also, done.method.name))}: {plan.layout} ({how})")
        render.row("", "their files have the same names, which do not tell what the network was fed")
    else:
        render.row("method", f"{done.method.name}: {done.method.title}, {plan.layout} ({how})")
        if done.also:
            render.row("", f"the same names and the same result: {', '.join(done.also)}")
    _another_s_release(done)
    render_sources.licence(done.licence, bool(done.release))
    filled = len(plan.moves)
    wanted = filled + len(plan.optional_missing)
    other_values = plan.entries - plan.tensors
    others = f" and {render.count(other_values, 'other value')}" if other_values else ""
    render.row(
        "backbone",
        f"{backbone.name}: {filled}/{wanted} tensors for {plan.target}, of {plan.tensors}{others} in the file",
    )
    if backbone.unusual:
        render.row("unusual", backbone.unusual)
    if heads := _heads(plan, done.method.name):
        render.row("heads", heads)
    if positions := _positions(done):
        render.row("positions", positions)
    if function := _function(done):
        render.row("assumed", function)
    if plan.optional_missing:
        render.row("", f"not in the file and not needed: {_folded(plan.optional_missing)}")
    for i, (why, names) in enumerate(dropped_by_reason(plan).items()):
        count = sum(d.why == why for d in plan.dropped)
        shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
        render.row("" if i else "dropped", f"{count:>4}  {why}: {shown}")
    channels = backbone.in_channels
    if plan.selected_channels is not None:
        render.row(
            "channels",
            f"{plan.selected_channels}{_divided(plan.selected_channels.channels)}: no longer the numbers of the source",
        )
    if plan.selected_channels is not None or channels != 3:
        render.row(
            "pixels", "the mean and std of these channels are not known: emit-config takes yours (--mean, --std)"
        )
    render_inspection.copies(done.copies)
    for i, one in enumerate(plan.resized):
        render.row("" if i else "resized", f"{one}: no longer the numbers of the source")
    if done.dtype:
        render.row("rounded", f"floating tensors to {done.dtype}: no longer bit for bit the source")
    output = f"{done.destination_format}, {'' if done.written else 'about '}{size(done.destination_size)}"
    if not done.written:
        render.row("dry run", f"{done.destination} ({output}) was not written")
        _report(done)
        return
    render.row("wrote", f"{done.destination} ({output}) in {done.seconds:.2f} s")
    render.row("proved", f"{done.proved}/{filled} tensors read back equal; fingerprint {done.fingerprint[:16]}")
    _report(done)
    detected = network(backbone, target=plan.target)
    if detected is not None:
        base, out = (f" --base {detected.base}", "detector.py") if detected.base else ("", "mask_rcnn.py")
        asked = " --mean 0 --std 1" if plan.selected_channels is not None or channels != 3 else ""
        render.row("next", f"ckptconv emit-config {shell_word(done.destination)}{base}{asked} -o {out}")


def _report(done: Receipt) -> None:
    if done.report:
        render.row("report", done.report)


def _another_s_release(done: Receipt) -> None:
    """Say whose release the file is, where its names made it another method's, with that one's pixels."""
    known = registry.releases().get(done.release) if done.release and not done.method_named else None
    if known is not None and known[0].name not in (done.method.name, *done.also):
        render.row("", f"it is the release {done.release}, of {known[0].name}: --selfsup {known[0].name}")


def _heads(plan: Plan, method: str) -> str:
    """How many attention heads the network has and how one knows; '' where its tensors show it, or it has none."""
    number: Any = getattr(plan.backbone, "num_heads", None)
    if plan.heads_from == "unknown":
        return (
            "unknown: no tensor shows how many, and no published network tells. emit-config needs the number: "
            "--num-heads N"
        )
    if plan.heads_from == "usual":
        return f"{number}, as published networks of this width have: no tensor shows it. --num-heads N gives another"
    if plan.heads_from == "assumed":
        return (
            f"{number}, assumed: no tensor shows it, and no network of this width is published. "
            "If it has another number, its features are wrong: --num-heads N"
        )
    if plan.heads_from == "method":
        return f"{number}, as {method} states: no tensor shows it"
    return f"{number}, as asked: no tensor shows it" if plan.heads_from == "given" else ""


def _function(done: Receipt) -> str:
    """Whose activations and norms a detector will have, where the names are those of many networks; '' elsewhere."""
    backbone = done.plan.backbone
    built = None if backbone is None else network(backbone, target=done.plan.target)
    if built is None or done.method not in NAMING_SCHEMES or done.release:
        return ""
    whose = f"timm's {built.arguments['name']}" if built.of_timm else f"the class {built.arguments['type']}"
    return f"activations, epsilons, anti-aliasing are those of {whose}: no tensor shows them; the proof is of tensors"


def _positions(done: Receipt) -> str:
    """What a detector does to a table of positions that the network's authors do not, or may not; '' for none."""
    backbone, target = done.plan.backbone, done.plan.target
    if backbone is None or "pos_embed" not in backbone.entries():
        return ""
    if getattr(backbone, "grid_size", 0) is None:
        count = getattr(backbone, "positions", 0)
        return f"{count} are not a square grid: the sides of its images are unknown, and emit-config refuses it"
    if network(backbone, target=target) is None:
        return ""
    stated = done.method.resampling(backbone)
    if stated is not None:
        if target == FAMILIES[backbone.family].targets[0] or stated == MAE_RESAMPLING:
            return ""  # TimmBackbone resizes as the file says; ViTDet and MMPretrain as MAE does
        return (
            f"resized for other images as {target} does, which is not what {done.method.name} does: without --target, "
            "or with --image-size N, they are resized its way"
        )
    known = registry.methods()
    states = [name for name in done.also if name in known and known[name].resampling(backbone) is not None]
    asked = f"; --selfsup {' or '.join(states)} takes that method's own way" if states else ""
    return f"resized for other images as {target} does: how its authors do it is not known{asked}"


def _divided(channels: Sequence[int]) -> str:
    """A note on channels that are there more than once."""
    several = {channel: channels.count(channel) for channel in channels if channels.count(channel) > 1}
    parts = (f"channel {channel} {times} times, divided by {times}" for channel, times in several.items())
    return f" ({'; '.join(parts)})" if several else ""


def _folded(names: Iterable[str]) -> str:
    lines = list(fold(names))
    return ", ".join(lines[:3]) + (", …" if len(lines) > 3 else "")


def _receipt_data(done: Receipt) -> dict[str, object]:
    plan = done.plan
    assert plan.backbone is not None
    return {
        "source": {
            "path": done.source,
            "format": done.source_format,
            "bytes": done.source_size,
            "release": done.release or None,
            "fetched": [vars(transfer) for transfer in done.transfers],
            "checksums": done.checksums,
            "would_have_called": list(done.dangerous),
        },
        "method": {
            "name": done.method.name,
            "title": done.method.title,
            "named": done.method_named,
            "also": list(done.also),
        },
        "licence": render_sources.licence_data(done.licence),
        "layout": plan.layout,
        "section": plan.section,
        "target": plan.target,
        "backbone": {
            "name": plan.backbone.name,
            "unusual": plan.backbone.unusual or None,
            **described(plan.backbone),
            "heads_from": plan.heads_from,
        },
        "tensors": {
            "in_section": plan.tensors,
            "entries": plan.entries,
            "kept": {m.target: list(m.sources) for m in plan.moves},
            "dropped": {d.source: d.why for d in plan.dropped},
            "optional_missing": list(plan.optional_missing),
            "selected_channels": {p.target: {"channels": list(p.channels), "of": p.of}}
            if (p := plan.selected_channels)
            else {},
            "resized": {r.target: {"from": [r.old, r.old], "to": [r.new, r.new]} for r in plan.resized},
        },
        "copies": [render_inspection.copy_data(one) for one in done.copies],
        "dtype": done.dtype,
        "output": {
            "path": done.destination,
            "format": done.destination_format,
            "bytes": done.destination_size,
            "written": done.written,
            "proved": done.proved,
            "fingerprint": done.fingerprint,
        },
        "report": done.report or None,
        "seconds": round(done.seconds, 3),
    }


def explanation(found: Explanation, as_json: bool) -> None:
    if as_json:
        render.dump("explain", {**vars(found), "spec": str(found.spec) if found.spec else None})
        return
    render.row("key", f"{found.key} ({found.spec})" if found.spec else found.key)
    render.row("method", f"{found.method}, {section_label(found.section)}")
    render.row(
        found.fate,
        f"as {found.target}: {found.why}" if found.target else found.why,
        11 if found.fate == "unexplained" else 9,
    )
    if found.rule:
        render.row("rule", found.rule + (f" (after '{found.prefix}')" if found.prefix else ""))
