"""Several reports as one page: their verdicts and AP, their curves, and what differs between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ckptconv.mmdetection.verify.compare_ap import COLOURS
from ckptconv.mmdetection.verify.report.comparison import (
    Compared,
    Difference,
    config_differences,
    fact_differences,
)
from ckptconv.mmdetection.verify.report.report import RunReport
from ckptconv.mmdetection.verify.run.files import RANDOM
from ckptconv.report import charts, parts
from ckptconv.report.charts import Line
from ckptconv.report.markup import Html, element
from ckptconv.report.page import page as page_of
from ckptconv.report.rows import dots

_MOST, _LONGEST = 80, 160  # differences, and letters of a value
_Points = Sequence[tuple[float, float]]


def page(compared: Sequence[Compared]) -> str:
    """The page's text."""
    return page_of(f"{len(compared)} verifications", _parts(compared))


def _parts(compared: Sequence[Compared]) -> Iterator[Html]:
    yield element("h1", f"{len(compared)} verifications")
    yield parts.section("Verdicts", _verdicts(compared))
    metrics = list(dict.fromkeys(metric for one in compared for run in one.report.runs for metric in run.ap))
    if metrics:
        yield parts.section("Average precision, in percent", _aps(compared, metrics))
        drawn = [chart for metric in metrics if (chart := _dots(compared, metric)) is not None]
        yield element("div", *drawn, class_="two")
    curves = list(_curves(compared, metrics))
    if curves:
        yield parts.section("Curves", element("div", *curves, class_="two"))
    yield parts.section("What differs in the configs", *_differences(compared, config_differences(compared)))
    yield parts.section("What else differs", *_differences(compared, fact_differences(compared)))


def _verdicts(compared: Sequence[Compared]) -> Html:
    rows = []
    for i, one in enumerate(compared, 1):
        judged = one.report.verdict
        said = ". ".join(filter(None, (judged.meaning, *judged.reasons)))
        mark = parts.mark(COLOURS.get(judged.status, parts.WARN), judged.status)
        rows.append((str(i), mark, one.folder, one.report.tier, said, one.report.date[:10]))
    return parts.table(
        ("", "verdict", "report", "tier", "why", "date"), rows, "The reports and their verdicts", words=(0,)
    )


def _name(compared: Sequence[Compared], one: Compared, group: str) -> str:
    """The number of a report, with the group where it has several."""
    number = str(compared.index(one) + 1)
    return number if len(one.groups) < 2 else f"{number} {group}"


def _aps(compared: Sequence[Compared], metrics: Sequence[str]) -> Html:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    rows = []
    for i, one in enumerate(compared, 1):
        expected = one.report.expected.ap if one.report.expected else {}
        for group in one.groups:
            runs = [run for run in one.report.runs if run.group == group]
            aps = [cell for m in metrics for cell in (number(one.mean(m, group)), number(expected.get(m)))]
            rows.append((f"{i}", group, str(len(runs)), *aps, str(runs[0].iterations or "–")))
    names = [name for metric in metrics for name in (metric, "expected")]
    return parts.table(("", "runs", "seeds", *names, "iterations"), rows, "Mean AP of each report")


def _dots(compared: Sequence[Compared], metric: str) -> Html | None:
    groups = {
        _name(compared, one, group): [
            (f"seed {run.seed}", value)
            for run in one.report.runs
            if run.group == group and (value := run.ap.get(metric)) is not None
        ]
        for one in compared
        for group in one.groups
    }
    kinds = [i for i, one in enumerate(compared) for group in one.groups if groups[_name(compared, one, group)]]
    groups = {name: values for name, values in groups.items() if values}
    if not groups:
        return None
    said = ", ".join(f"{name}: {', '.join(f'{value:.1f}' for _, value in values)}" for name, values in groups.items())
    chart = dots(f"{metric} AP of each run. {said}.", groups, x=f"{metric} AP", kinds=kinds, linked=False)
    return element("figure", element("h3", f"AP of each run, {metric}"), chart)


def _curves(compared: Sequence[Compared], metrics: Sequence[str]) -> Iterator[Html]:
    """One colour a report; random arms are left out, since there is one line too many as it is."""

    def drawn(points: Callable[[RunReport], _Points]) -> list[Line]:
        lines = [
            Line(f"{i + 1}: {run.name}", points(run), i)
            for i, one in enumerate(compared)
            for run in one.report.runs
            if run.steps and run.group != RANDOM
        ]
        return [line for line in lines if line.points]

    legend = charts.legend({i: f"{i + 1}" for i in range(min(len(compared), charts.COLOURS))})
    losses = drawn(lambda run: [(i, loss) for i, loss, _ in run.steps if loss is not None and loss > 0])
    if losses:
        said = f"The loss of {len(losses)} trainings on a log axis."
        chart = charts.lines(said, losses, x="iteration", y="loss", log=True)
        yield element("figure", element("h3", "Loss"), chart, legend)
    rates = drawn(lambda run: [(i, lr) for i, _, lr in run.steps])
    if rates:
        chart = charts.lines("The learning rates.", rates, x="iteration", y="learning rate")
        yield element("figure", element("h3", "Learning rate"), chart, legend)
    for metric in metrics:
        aps = drawn(_evaluated(metric))
        if aps:
            chart = charts.lines(f"{metric} AP of {len(aps)} trainings.", aps, x="iteration", y=f"{metric} AP")
            yield element("figure", element("h3", f"AP, {metric}"), chart, legend)


def _evaluated(metric: str) -> Callable[[RunReport], _Points]:
    return lambda run: [(i, value) for i, ap in run.evaluations if (value := ap.get(metric)) is not None]


def _differences(compared: Sequence[Compared], found: Sequence[Difference]) -> Iterator[Html]:
    if not found:
        yield element("p", "Nothing.")
        return
    head = ("", *(str(i) for i in range(1, len(compared) + 1)))
    rows = [(one.path, *map(_shown, one.values)) for one in found[:_MOST]]
    yield parts.table(head, rows, "What differs, by report", words=())
    if len(found) > _MOST:
        yield element("p", f"… and {len(found) - _MOST} more.", class_="soft")


def _shown(value: str) -> str:
    return "–" if not value else value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
