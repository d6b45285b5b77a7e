"""What a verification reports, as data, and its JSON: ``report.json``, schema 2.

::

    schema, command        2, "verify-ap"
    config, title, tier, purpose
    verdict                {status, reasons, rule, needed, meaning}
    expected               {ap: {box, mask}, tolerance, above, band (in words), reason, source} or null
    proof                  {equal, total, checkpoint, fingerprint, method, backbone} or null
    notes                  [sentences: where the run differs from the config]
    recipe                 {digest, row, images_per_step, length, lr, detector, style, schedule, stand_in} of what ran
    data                   {generated, images, annotated, sha256, notes}; notes: of the data check, in words
    detector               {path, sha256} of the eval tier, or null
    runs                   [{name, group, seed, iterations, starts, seconds_per_step, images_per_second, peak_mib, ap,
                             metrics, raw, detections, steps, evaluations, environment, classes}]
    date                   when it was judged, UTC
    command_line           what was typed; '' where verify-ap was called from Python

``metrics`` of a run: {box|mask: {AP, AP50, AP75, APs, APm, APl}} in percent, null where no such object is annotated;
``ap`` the first of each; ``raw``: metrics of the raw weights, where ``metrics`` are of their average (EMAHook), else
null. ``steps``: [iteration, loss, lr]; ``evaluations``: [iteration, {box, mask}]. ``classes``: {box|mask: {class: AP}}.
Reports of older versions have neither ``classes`` nor ``command_line``.

Schema 1, of ckptconv 0.1, has other names: ``target`` for ``config``, ``claim`` for ``purpose``, ``images`` of the
recipe, and of a run ``seconds``, ``images_a_second`` and ``vals``; the first reports of it have neither notes nor
``raw``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from ckptconv.errors import UnreadableError
from ckptconv.mmdetection.verify.compare_ap import Expected, Verdict

SCHEMA = 2
COMMAND = "verify-ap"
Metrics = Mapping[str, Mapping[str, float | None]]
"""By 'box' and 'mask', and by the names of `measure.NAMES`: AP in percent; None where no such object is annotated."""


class LossPoint(NamedTuple):
    """One point of a loss curve; ``loss`` is None where it was not finite."""

    iteration: int
    loss: float | None
    lr: float


class Evaluated(NamedTuple):
    """AP in percent, by 'box' and 'mask', after this iteration of a training."""

    iteration: int
    ap: Mapping[str, float | None]


@dataclass(frozen=True)
class LoadProof:
    """How many of the backbone's tensors equal its checkpoint's, and what is known of the checkpoint."""

    equal: int
    total: int
    checkpoint: str
    fingerprint: str | None
    method: str | None
    backbone: str | None


@dataclass(frozen=True)
class RecipeReport:
    """What was trained or tested. ``row``: the published recipe with the same digest; ``length``: '12 epochs'.

    ``stand_in``: the small network, of random weights, that was trained in place of the checkpoint's.
    """

    digest: str
    row: str | None
    images_per_step: int
    length: str
    lr: float | None
    detector: str | None
    style: str
    schedule: str | None
    stand_in: str | None = None


@dataclass(frozen=True)
class DataReport:
    """The data that were evaluated. ``images`` of them, of ``annotated`` in the file with this ``sha256``."""

    generated: bool
    images: int | None
    annotated: int | None
    sha256: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DetectorReport:
    """The file of the detector that the eval tier tested."""

    path: str
    sha256: str | None


@dataclass(frozen=True)
class RunReport:
    """One run that ended, as the module's docstring describes it."""

    name: str
    group: str
    seed: int
    iterations: int | None
    starts: int
    seconds_per_step: float | None
    images_per_second: float | None
    peak_mib: float | None
    ap: Mapping[str, float | None]
    metrics: Metrics
    raw: Metrics | None
    detections: int
    steps: tuple[LossPoint, ...]
    evaluations: tuple[Evaluated, ...]
    environment: Mapping[str, object]
    classes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def raw_weights(self) -> str:
        """AP of the raw weights, in words, where the run's own AP is of their average; else ''."""
        aps = ", ".join(f"{m} AP {ap['AP']:.2f}" for m, ap in (self.raw or {}).items() if ap["AP"] is not None)
        return f"{self.name}, raw weights: {aps}" if aps else ""


@dataclass(frozen=True)
class VerificationReport:
    """All of it. ``purpose``: what the tier shows if it passes; ``date``: ISO 8601, UTC."""

    config: str
    title: str
    tier: str
    purpose: str
    verdict: Verdict
    expected: Expected | None
    proof: LoadProof | None
    notes: tuple[str, ...]
    recipe: RecipeReport
    data: DataReport
    detector: DetectorReport | None
    runs: tuple[RunReport, ...]
    date: str
    command_line: str = ""

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_()


def as_json(report: VerificationReport) -> dict[str, Any]:
    """The object of ``report.json``."""
    body = asdict(report)
    if report.expected is not None:
        body["expected"]["band"] = report.expected.band
    return {"schema": SCHEMA, "command": COMMAND, **body}


def from_json(body: Mapping[str, Any]) -> VerificationReport:
    """The report in the object of a ``report.json``, of schema 1 or 2. Raises UnreadableError for another schema."""
    schema = body.get("schema")
    if schema not in (1, SCHEMA):
        raise UnreadableError(f"the report has schema {schema!r}, and this ckptconv reads 1 and 2", "Update ckptconv.")
    body = _from_schema_1(body) if schema == 1 else body
    expected, proof, detector = body["expected"], body["proof"], body["detector"]
    return VerificationReport(
        config=body["config"],
        title=body["title"],
        tier=body["tier"],
        purpose=body["purpose"],
        verdict=Verdict(**{**body["verdict"], "reasons": tuple(body["verdict"]["reasons"])}),
        expected=Expected(**{k: v for k, v in expected.items() if k != "band"}) if expected else None,
        proof=LoadProof(**proof) if proof else None,
        notes=tuple(body["notes"]),
        recipe=RecipeReport(**body["recipe"]),
        data=DataReport(**{**body["data"], "notes": tuple(body["data"]["notes"])}),
        detector=DetectorReport(**detector) if detector else None,
        runs=tuple(map(_run, body["runs"])),
        date=body["date"],
        command_line=body.get("command_line", ""),
    )


def _run(body: Mapping[str, Any]) -> RunReport:
    steps, evaluations = (
        tuple(LossPoint(*s) for s in body["steps"]),
        tuple(Evaluated(*e) for e in body["evaluations"]),
    )
    return replace(RunReport(**body), steps=steps, evaluations=evaluations)


_RENAMED = {
    "target": "config",
    "claim": "purpose",
    "images": "images_per_step",
    "seconds": "seconds_per_step",
    "images_a_second": "images_per_second",
    "vals": "evaluations",
}
"""Names of schema 1 -> names of schema 2; ``images`` in the recipe only."""


def _from_schema_1(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "notes": [],
        **_renamed(body),
        "recipe": _renamed(body["recipe"]),
        "data": {"notes": [], **body["data"]},
        "runs": [{"raw": None, **_renamed(run)} for run in body["runs"]],
    }


def _renamed(body: Mapping[str, Any]) -> dict[str, Any]:
    return {_RENAMED.get(name, name): value for name, value in body.items()}
