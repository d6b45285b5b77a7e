"""``report.html``: the report as one page that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from urllib.parse import quote

from ckptconv.mmdetection.verify.compare_ap import COLOURS
from ckptconv.mmdetection.verify.measure import NAMES
from ckptconv.mmdetection.verify.report import curves, detections
from ckptconv.mmdetection.verify.report.detections import EvaluatedImages
from ckptconv.mmdetection.verify.report.matching import RULE
from ckptconv.mmdetection.verify.report.report import RunReport, VerificationReport
from ckptconv.report import parts
from ckptconv.report.markup import Html, element
from ckptconv.report.page import page as page_of
from ckptconv.text import size

_HEAD = ("run", "", *NAMES, "iterations", "memory", "images/s")


def page(report: VerificationReport, images: EvaluatedImages | None, files: Sequence[str] = ()) -> str:
    """The page's text, with detections drawn on ``images``, and links to ``files`` beside it."""
    return page_of(f"{report.config}: {report.verdict.status}", _parts(report, images, files))


def verdict(report: VerificationReport) -> Html:
    """The verdict in words."""
    judged = report.verdict
    headline = ": ".join(filter(None, (judged.status, judged.meaning)))
    needed = [f"About {judged.needed} seeds would decide."] if judged.needed else []
    return parts.verdict(
        COLOURS.get(judged.status, parts.WARN),
        headline,
        [f"{reason}." for reason in judged.reasons] + needed,
        [f"Rule: {judged.rule}."],
    )


def _parts(report: VerificationReport, images: EvaluatedImages | None, files: Sequence[str]) -> Iterator[Html]:
    runs, expected = report.runs, report.expected.ap if report.expected else {}
    yield element("h1", report.config)
    yield element("p", f"{report.title}; tier {report.tier}: {report.purpose}", class_="soft")
    yield verdict(report)
    lift = curves.lift(runs)
    if lift:
        yield parts.section("The lift", element("div", *lift, class_="two"))
    if runs:
        yield parts.section("Average precision, in percent", table(runs), *_classes(runs))
    drawn = [drawing for drawing in (curves.loss(runs), *curves.ap(runs, expected)) if drawing]
    if drawn:
        yield parts.section("Curves", element("div", *drawn, class_="two"))
    if runs and images is not None:
        yield parts.section("The hardest images", *_images(images))
    yield parts.section("What was measured", parts.facts(_facts(report)))
    if report.command_line:
        command = element("pre", report.command_line, tabindex="0")
        yield parts.section("What was typed", element("div", command, class_="command"))
    if files:
        yield parts.section("Files", element("ul", *map(_link, files)))


def _images(images: EvaluatedImages) -> Iterator[Html]:
    shown = list(detections.figures(images))
    if not shown:
        yield element("p", "No image has an object or a detection.")
        return
    yield element("p", RULE, class_="soft")
    yield detections.key()
    yield element("div", *shown, class_="many")


def _link(name: str) -> Html:
    return element("li", element("a", name, href=quote(name)))


def table(runs: Iterable[RunReport]) -> Html:
    """AP of each run, by size of the objects."""
    return parts.table(_HEAD, _rows(runs), "AP of each run")


def _rows(runs: Iterable[RunReport]) -> Iterator[Sequence[str]]:
    for run in runs:
        for i, (metric, values) in enumerate((run.raw or {}).items()):
            names = (f"{run.name}, raw weights" if i == 0 else "", metric)
            yield (*names, *(_number(values[n]) for n in NAMES), "", "", "")
        for i, (metric, values) in enumerate(run.metrics.items()):
            speed = f"{run.images_per_second:.1f}" if run.images_per_second else "–"
            memory = size(int(run.peak_mib * 2**20)) if run.peak_mib else "–"
            rest = (str(run.iterations or "–"), memory, speed) if i == 0 else ("", "", "")
            yield (run.name if i == 0 else "", metric, *(_number(values[n]) for n in NAMES), *rest)


def _classes(runs: Sequence[RunReport]) -> Iterator[Html]:
    """AP of each class, the mean over the runs of each group; the lowest of the first group first."""
    groups = dict.fromkeys(run.group for run in runs)
    columns = [(group, metric) for group in groups for metric in runs[0].classes]
    names = list(dict.fromkeys(name for run in runs for values in run.classes.values() for name in values))
    if len(names) < 2 or not columns:
        return

    def mean(name: str, group: str, metric: str) -> float | None:
        values = [run.classes.get(metric, {}).get(name) for run in runs if run.group == group]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    rows = [(name, [mean(name, *column) for column in columns]) for name in names]
    rows.sort(key=lambda row: (row[1][0] is None, row[1][0]))
    head = ("class", *(f"{group}, {metric}" if len(groups) > 1 else metric for group, metric in columns))
    cells = [(name, *map(_number, values)) for name, values in rows]
    yield parts.folded(["AP by class", parts.soft(f"{len(names)} classes")], parts.table(head, cells, "AP by class"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _facts(report: VerificationReport) -> dict[str, str]:
    recipe, data, proof, expected = report.recipe, report.data, report.proof, report.expected
    facts = {
        "expected": f"{expected.band}; {expected.source}" if expected else "nothing",
        "proof": f"{proof.equal}/{proof.total} tensors equal {proof.checkpoint}" if proof else "",
        "backbone": f"{proof.backbone} of {proof.method}" if proof and proof.method else "",
        "fingerprint": (proof.fingerprint or "")[:16] if proof else "",
        "detector": f"{recipe.detector}, {recipe.images_per_step} images per step",
        "recipe": recipe.digest,
        "data": ("generated, " if data.generated else "") + f"{data.images or 0} images evaluated",
        "notes": "; ".join(report.notes),
        "annotations": f"sha256 {data.sha256}" if data.sha256 else "",
    }
    for run in report.runs[:1]:
        facts |= {str(name): str(value) for name, value in run.environment.items() if value is not None}
    return facts | {"judged": report.date}
