"""``report.md``: a table with the columns of MMDetection's own, and the verdicts below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckptconv.errors import printable
from ckptconv.mmdetection.verify.report.report import RunReport, VerificationReport
from ckptconv.mmdetection.verify.run.files import RANDOM

# https://github.com/open-mmlab/mmdetection/blob/v3.3.0/configs/selfsup_pretrain/README.md
_COLUMNS = (
    "Method",
    "Backbone",
    "Style",
    "Lr schd",
    "Mem (GB)",
    "Inf time (fps)",
    "box AP",
    "mask AP",
    "Config",
    "Download",
)


def markdown(reports: Sequence[VerificationReport]) -> str:
    """The reports as one table, with a row for each group of runs, and what each report says below it."""
    lines = [_line(_COLUMNS), _line("---" for _ in _COLUMNS)]
    below = []
    for report in reports:
        groups = dict.fromkeys(run.group for run in report.runs)
        lines += [_line(_cells(report, group)) for group in groups]
        verdict = report.verdict
        meaning = f": {verdict.meaning}" if verdict.meaning else ""
        below.append(f"{report.config}, tier {report.tier} ({report.purpose}): **{verdict.status}**{meaning}.")
        below += [f"  {reason}." for reason in verdict.reasons]
        below += [f"  {note}." for note in report.notes]
        below += [f"  {raw}." for run in report.runs if (raw := run.raw_weights())]
    return "\n".join(map(printable, [*lines, "", *below])) + "\n"


def _cells(report: VerificationReport, group: str) -> list[str]:
    runs = [run for run in report.runs if run.group == group]
    recipe, proof = report.recipe, report.proof
    random = group == RANDOM or recipe.stand_in
    method = "random weights" if random else (proof and proof.method) or recipe.detector
    speeds = [run.images_per_second for run in runs if run.images_per_second]
    peak = max((run.peak_mib for run in runs if run.peak_mib), default=None)
    memory = f"{peak * 2**20 / 1e9:.1f}" if peak else ""
    device = runs[0].environment.get("device") or "unknown"
    return [
        str(method),
        recipe.stand_in or (proof and proof.backbone) or "",
        recipe.style,
        report.tier if report.data.generated else recipe.schedule or recipe.length,
        memory + (" of the process" if memory and device == "CPU" else ""),
        f"{sum(speeds) / len(speeds):.1f} ({device})" if speeds else "",
        mean(runs, "box"),
        mean(runs, "mask"),
        report.config,
        "",
    ]


def mean(runs: Iterable[RunReport], metric: str) -> str:
    """The mean AP over runs, to one decimal; '' where it was not measured."""
    values = [ap for run in runs if (ap := run.ap.get(metric)) is not None]
    return f"{sum(values) / len(values):.1f}" if values else ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
