"""``report.html``: the report as one page that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from ckptconv.mmdetection.verify.compare_ap import FAIL, INCONCLUSIVE
from ckptconv.mmdetection.verify.measure import NAMES
from ckptconv.mmdetection.verify.report import curves, detections
from ckptconv.mmdetection.verify.report.detections import EvaluatedImages
from ckptconv.mmdetection.verify.report.report import RunReport, VerificationReport
from ckptconv.report import parts
from ckptconv.report.markup import Html, element
from ckptconv.report.page import page as page_of
from ckptconv.text import size

_COLOURS = {FAIL: parts.BAD, INCONCLUSIVE: parts.WARN}
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
        _COLOURS.get(judged.status, parts.GOOD),
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
        yield parts.section("Average precision, in percent", table(runs))
    drawn = [drawing for drawing in (curves.loss(runs), *curves.ap(runs, expected)) if drawing]
    if drawn:
        yield parts.section("Curves", element("div", *drawn, class_="two"))
    if runs and images is not None:
        figures = [
            element("figure", element("img", src=Html(url), alt=caption), element("figcaption", caption))
            for caption, url in detections.drawn(images)
        ]
        shown = element("div", *figures, class_="many") if figures else element("p", "None above 0.5.")
        yield parts.section("Detections", shown)
    yield parts.section("What was measured", parts.facts(_facts(report)))
    if files:
        yield parts.section("Files", element("ul", *map(_link, files)))


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
