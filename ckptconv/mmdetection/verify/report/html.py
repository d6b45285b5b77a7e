"""``report.html``: the report as one page that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ckptconv.errors import printable
from ckptconv.mmdetection.verify.measure import NAMES
from ckptconv.mmdetection.verify.report import curves, detections
from ckptconv.mmdetection.verify.report.detections import EvaluatedImages
from ckptconv.mmdetection.verify.report.report import RunReport, VerificationReport
from ckptconv.text import size

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #6b6b76; --line: #dcdce2; --paper: #fff; --box: #f6f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf1; --soft: #a0a0ad; --line: #3a3a44; --paper: #16161a; --box: #1f1f26 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.4rem; margin: 0 0 .25rem } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
p { margin: .25rem 0 } .soft { color: var(--soft) }
.verdict { border-left: .4rem solid var(--hue); background: var(--box); padding: .75rem 1rem; margin: 1rem 0 }
.verdict b { color: var(--hue); font-size: 1.1rem }
.pass, .measured { --hue: #15803d } .fail { --hue: #c62828 } .inconclusive { --hue: #b45309 }
@media (prefers-color-scheme: dark) {
  .pass, .measured { --hue: #4ade80 } .fail { --hue: #f87171 } .inconclusive { --hue: #fbbf24 } }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { color: var(--soft); font-weight: 500 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0 }
dt { color: var(--soft) } dd { margin: 0 }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem }
.six { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 1rem }
svg, img { width: 100%; height: auto; display: block } figure { margin: 0 } figcaption { color: var(--soft) }
"""


def page(report: VerificationReport, images: EvaluatedImages | None) -> str:
    """The page's text, with detections drawn on ``images``. What comes from a file or a user is escaped."""
    verdict, runs = report.verdict, report.runs
    expected = report.expected.ap if report.expected else {}
    reasons = "".join(f"<p>{escape(reason)}.</p>" for reason in verdict.reasons)
    means = f"<p>{escape(verdict.meaning)}.</p>" if verdict.meaning else ""
    needed = f"<p>About {verdict.needed} seeds would decide.</p>" if verdict.needed else ""
    parts = [
        f"<h1>{escape(report.config)}</h1>",
        f'<p class="soft">{escape(report.title)}; tier {escape(report.tier)}: {escape(report.purpose)}</p>',
        f'<div class="verdict {escape(verdict.status)}"><b>{escape(verdict.status)}</b>{means}{reasons}{needed}',
        f'<p class="soft">Rule: {escape(verdict.rule)}.</p></div>',
    ]
    if runs:
        parts += ["<h2>Average precision, in percent</h2>", _table(runs)]
    drawings = [drawing for drawing in (curves.loss(runs), curves.ap(runs, expected)) if drawing]
    if drawings:
        parts += ["<h2>Curves</h2>", f'<div class="two">{"".join(f"<div>{d}</div>" for d in drawings)}</div>']
    if runs and images is not None:
        figures = "".join(
            f'<figure><img src="{url}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
            for caption, url in detections.drawn(images)
        )
        parts += ["<h2>Detections</h2>", f'<div class="six">{figures}</div>' if figures else "<p>None above 0.5.</p>"]
    parts += ["<h2>What was measured</h2>", _facts(report)]
    body = "\n".join(parts)
    title = escape(f"{report.config}: {verdict.status}")
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    return "\n".join(map(printable, text.split("\n")))


def _table(runs: Iterable[RunReport]) -> str:
    head = ("run", "", *NAMES, "iterations", "memory", "images/s")
    rows = []
    for run in runs:
        for i, (metric, values) in enumerate((run.raw or {}).items()):
            names = (f"{run.name}, raw weights" if i == 0 else "", metric)
            rows.append((*names, *(_number(values[n]) for n in NAMES), "", "", ""))
        for i, (metric, values) in enumerate(run.metrics.items()):
            speed = f"{run.images_per_second:.1f}" if run.images_per_second else "–"
            memory = size(int(run.peak_mib * 2**20)) if run.peak_mib else "–"
            rest = (str(run.iterations or "–"), memory, speed) if i == 0 else ("", "", "")
            rows.append((run.name if i == 0 else "", metric, *(_number(values[n]) for n in NAMES), *rest))
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return (
        f'<div class="wide"><table><tr>{"".join(f"<th>{escape(cell)}</th>" for cell in head)}</tr>'
        f"{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _facts(report: VerificationReport) -> str:
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
    facts["judged"] = report.date
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts.items() if v)}</dl>"
