"""Loss and AP over the iterations, as SVG that an HTML page can hold. matplotlib draws it; mmdet depends on it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

from ckptconv.mmdetection.verify.report.report import RunReport

_COLORS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2")
_INK = "#888888"  # readable on white and on black


def loss(runs: Sequence[RunReport]) -> str:
    """The loss of each run; '' if none has trained."""
    lines = [(run.name, [(i, loss) for i, loss, _ in run.steps if loss is not None]) for run in runs]
    return _drawn(lines, "loss", {})


def ap(runs: Sequence[RunReport], expected: Mapping[str, float]) -> str:
    """Box and mask AP of each run, and the expected AP; '' if nothing was evaluated during training."""
    lines = [
        (f"{run.name} {metric}", [(i, value) for i, ap in run.evaluations if (value := ap.get(metric)) is not None])
        for run in runs
        if run.steps
        for metric in run.ap
    ]
    return _drawn(lines, "AP", expected)


def _drawn(lines: Sequence[tuple[str, Sequence[tuple[int, float]]]], what: str, levels: Mapping[str, float]) -> str:
    lines = [(name, points) for name, points in lines if points]
    if not lines:
        return ""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ckptconv", "font.size": 9}):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot()
        for i, (name, points) in enumerate(lines):
            marker = "o" if len(points) < 30 else None
            color = _COLORS[i % len(_COLORS)]
            axes.plot(*zip(*points, strict=True), label=name, color=color, marker=marker, markersize=3, linewidth=1.2)
        for metric, value in levels.items():
            axes.axhline(value, color=_INK, linestyle="--", linewidth=1, label=f"expected {metric} {value:g}")
        axes.set_xlabel("iteration", color=_INK)
        axes.set_ylabel(what, color=_INK)
        axes.tick_params(colors=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return _unique(drawn.getvalue(), what)


def _unique(text: str, what: str) -> str:
    """The drawing from its ``<svg`` on, with ids of its own: a page may hold two of them."""
    text = text[text.index("<svg") :]
    for name in set(re.findall(r' id="([^"]+)"', text)):
        text = text.replace(f'id="{name}"', f'id="{what}-{name}"')
        text = text.replace(f'"#{name}"', f'"#{what}-{name}"').replace(f"url(#{name})", f"url(#{what}-{name})")
    return text.replace("<svg", f'<svg role="img" aria-label="{what} over the iterations"', 1)
