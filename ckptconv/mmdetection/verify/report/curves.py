"""Loss, learning rate and AP over the iterations, and the two arms of a lift. Runs of one group have one colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptconv.mmdetection.verify.compare_ap import interval
from ckptconv.mmdetection.verify.report.report import RunReport
from ckptconv.mmdetection.verify.run.files import CONVERTED, RANDOM
from ckptconv.report import charts
from ckptconv.report.charts import Line
from ckptconv.report.markup import Html, element, joined
from ckptconv.report.rows import Interval, dots

_ARMS = {CONVERTED: "checkpoint", RANDOM: "random"}
"""What the arms of a lift are called in a chart."""


def _groups(runs: Sequence[RunReport]) -> dict[str, int]:
    """The groups of these runs, each with the number of its colour."""
    return {group: kind for kind, group in enumerate(dict.fromkeys(run.group for run in runs))}


def _figure(title: str, chart: Html, runs: Sequence[RunReport]) -> Html:
    groups = {kind: _ARMS.get(group, group) for group, kind in _groups(runs).items()}
    key = charts.legend(groups) if len(groups) > 1 else None
    return element("figure", element("h3", title), chart, key)


def loss(runs: Sequence[RunReport]) -> Html | None:
    """The loss of each run on a log axis, and the learning rate below it; None if none has trained."""
    kinds = _groups(runs)
    lines = [
        Line(run.name, [(i, loss) for i, loss, _ in run.steps if loss is not None and loss > 0], kinds[run.group])
        for run in runs
    ]
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    last = max(lines, key=lambda line: line.points[-1][0])
    said = f"The loss of {_count(lines)} on a log axis; at the end, {last.name} has {last.points[-1][1]:.3g}."
    drawn = charts.lines(said, lines, x="iteration", y="loss", log=True)
    rates = [(step.iteration, step.lr) for step in next(run for run in runs if run.name == last.name).steps]
    most = max(rate for _, rate in rates)
    rate = charts.lines(
        f"The learning rate of the first parameter group; its highest is {most:g}.",
        [Line(f"learning rate of {last.name}", rates, charts.COLOURS - 1)],
        x="iteration",
        y="learning rate",
        height=120,
    )
    return _figure("Loss and learning rate", joined((drawn, rate)), runs)


def ap(runs: Sequence[RunReport], expected: Mapping[str, float]) -> list[Html]:
    """For box and mask, AP over the iterations and the expected AP; empty if nothing was evaluated in a training."""
    kinds, figures = _groups(runs), []
    for metric in dict.fromkeys(metric for run in runs for metric in run.ap):
        lines = [Line(run.name, _evaluated(run, metric), kinds[run.group]) for run in runs if run.steps]
        lines = [line for line in lines if line.points]
        if lines:
            levels = {f"expected {expected[metric]:g}": expected[metric]} if metric in expected else {}
            ends = ", ".join(f"{line.name} ends at {line.points[-1][1]:.1f}" for line in lines)
            drawn = charts.lines(f"{metric} AP: {ends}.", lines, x="iteration", y=f"{metric} AP", levels=levels)
            figures.append(_figure(f"AP, {metric}", drawn, runs))
    return figures


def _evaluated(run: RunReport, metric: str) -> list[tuple[float, float]]:
    return [(i, value) for i, ap in run.evaluations if (value := ap.get(metric)) is not None]


def _count(lines: Sequence[Line]) -> str:
    return f"{len(lines)} trainings" if len(lines) > 1 else lines[0].name


def lift(runs: Sequence[RunReport]) -> list[Html]:
    """For box and mask, one dot for each seed in both arms, and their difference with its 95 % interval."""
    figures = []
    for metric in dict.fromkeys(metric for run in runs for metric in run.ap):
        arms = {
            _ARMS[arm]: [
                (f"seed {run.seed}", value)
                for run in runs
                if run.group == arm and (value := run.ap.get(metric)) is not None
            ]
            for arm in _ARMS
        }
        one, other = (dict(arm) for arm in arms.values())
        differences = [(seed, value - other[seed]) for seed, value in one.items() if seed in other]
        if len(differences) > 1:
            figures.append(_lift(metric, arms, differences))
    return figures


def _lift(metric: str, arms: Mapping[str, list[tuple[str, float]]], differences: list[tuple[str, float]]) -> Html:
    mean = interval([value for _, value in differences])
    said = ", ".join(
        f"{name} {min(v for _, v in arm):.2f} to {max(v for _, v in arm):.2f}" for name, arm in arms.items()
    )
    both = dots(f"{metric} AP of each seed: {said}.", arms, x=f"{metric} AP")
    between = dots(
        f"The difference in {metric} AP: {mean}, from {mean.low:.2f} to {mean.high:.2f}.",
        {"difference": differences},
        x="checkpoint minus random, in points",
        intervals={"difference": Interval(mean.low, mean.mean, mean.high)},
        zero=True,
        kinds=[2],
    )
    caption = element("figcaption", f"The mean difference is {mean} points; the bar is its 95 % interval.")
    return element("figure", element("h3", f"AP of each seed, {metric}"), both, between, caption)
