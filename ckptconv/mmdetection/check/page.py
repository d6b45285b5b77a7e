"""What `check` found, as an HTML page: the verdict, the findings, the modules and how they start. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ckptconv.mmdetection.check.evidence import Finding
from ckptconv.mmdetection.check.verdict import CheckReport, DetectorPart, ModuleReport
from ckptconv.report import charts, parts
from ckptconv.report.markup import Html, element, joined, prose
from ckptconv.report.page import fragment
from ckptconv.report.page import page as page_of
from ckptconv.report.rows import Bar, bars
from ckptconv.text import quantity

Say = Callable[[str], str]
_FRESH, _FILE, _WRONG = 5, 0, 4
"""The colours of what starts as its class does, of what is from a file, and of what should be and is not."""
_KINDS = {_FILE: "from the file", _WRONG: "should be from the file, and is not", _FRESH: "starts fresh"}
_HEAD = ("module", "class", "parameters", "from the file", "fresh", "frozen", "learning rate")


def page(report: CheckReport, say: Say = str) -> str:
    """The page's text. ``say`` spells the parameters and calls in its sentences."""
    return page_of(f"{report.config}: {report.verdict}", _parts(report, say))


def _parts(report: CheckReport, say: Say) -> Iterator[Html]:
    yield element("h1", report.config)
    yield element("p", f"A {report.detector}, built and initialised as its training does it", class_="soft")
    sentences = [f"{module_name(one)}: {one.equal} of {one.total} tensors are equal." for one in report.modules]
    yield parts.verdict(_colour(report), _sentence(report.verdict), [say(one) for one in sentences])
    if report.findings:
        yield parts.section("What is wrong", *_findings(report.findings, say))
    yield parts.section("What it starts from", *_start(report))
    if report.rates:
        yield parts.section("Learning rates", _rates(report))
    elif report.rates_unknown:
        yield parts.section("Learning rates", element("p", f"Not known: {report.rates_unknown}."))
    yield parts.section("Checkpoints", *(_module(one) for one in report.modules))
    notes = [*(note for one in report.modules for note in one.notes), *report.notes]
    if notes:
        yield parts.section("Notes", *_findings(notes, say))
    if report.training is not None:
        commands = [_command(f"{one.where}", one.text) for one in report.training.commands]
        yield parts.section("How to train it", element("p", f"{_sentence(report.training.rate)}."), *commands)


def _colour(report: CheckReport) -> str:
    return parts.GOOD if report.good else parts.BAD if report.proved else parts.WARN


def module_name(module: ModuleReport) -> str:
    """A module in words: where it is, and which network."""
    return f"{module.module or 'the whole detector'}, {module.network}"


def _findings(findings: Iterable[Finding], say: Say) -> Iterator[Html]:
    for finding in findings:
        yield element("p", prose(f"{_sentence(say(finding.text))}."))
        for i, fix in enumerate(finding.fixes):
            yield _command("or" if i else "fix", say(fix))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _command(label: str, text: str) -> Html:
    pre = element("pre", text, tabindex="0")
    return joined((element("div", label, class_="soft"), element("div", pre, class_="command")))


def _start(report: CheckReport) -> Iterator[Html]:
    if not report.parts:
        yield element("p", "Not known.")
        return
    whole, taken, frozen = (sum(values) for values in zip(*map(_amounts, report.parts), strict=True))
    yield element(
        "p",
        f"Of {quantity(whole)} numbers, {quantity(taken)} are from a file, and {quantity(frozen)} are frozen. "
        "The others start as their classes do.",
    )
    drawn = [_bar(part) for part in report.parts]
    said = "; ".join(f"{bar.name}: {bar.note}" for bar in drawn)
    kinds = {kind: name for kind, name in _KINDS.items() if any(bar.amounts[kind] for bar in drawn)}
    chart = bars(f"The modules by their numbers. {said}.", drawn)
    key = charts.legend(kinds, solid=True)
    caption = element("figcaption", "Hatched: frozen.") if frozen else None
    yield element("figure", chart, key, caption)
    yield parts.table(_HEAD, map(_row, report.parts), "The modules of the detector")


def _amounts(part: DetectorPart) -> tuple[int, int, int]:
    return part.numel, part.from_file, part.frozen


def _bar(part: DetectorPart) -> Bar:
    fresh = part.numel - part.from_file - part.wrong
    amounts = {_FILE: part.from_file, _WRONG: part.wrong, _FRESH: fresh}
    return Bar(part.path, amounts, quantity(part.numel), part.frozen)


def _row(part: DetectorPart) -> Sequence[str]:
    fresh = part.numel - part.from_file - part.wrong
    low, high = part.rates or (None, None)
    rate = "–" if low is None else f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    shares = (_share(n, part.numel) for n in (part.from_file, fresh, part.frozen))
    return (part.path, part.class_name, quantity(part.numel), *shares, rate)


def _share(number: int, of: int) -> str:
    if number in (0, of):
        return "all" if number else "–"
    return f"{100 * number / of:.3g} %"


def _rates(report: CheckReport) -> Html:
    rows = [
        (f"{one.lr:.4g}", ", ".join(one.modules), f"{one.weight_decay:g}", str(one.parameters), quantity(one.numel))
        for one in report.rates
    ]
    head = ("learning rate", "modules", "weight decay", "tensors", "numbers")
    return parts.table(head, rows, "The groups of the optimizer", words=(0, 2, 3, 4))


def _module(module: ModuleReport) -> Html:
    prefix = f", prefix {module.prefix!r}" if module.prefix else ""
    return element("p", f"{module_name(module)}: {module.equal}/{module.total} equal {module.checkpoint}{prefix}")


def small(report: CheckReport) -> str:
    """The verdict for a notebook."""
    facts = [(module_name(one), f"{one.equal}/{one.total} equal {one.checkpoint}") for one in report.modules]
    return fragment(_colour(report), report.verdict, facts, [finding.text for finding in report.findings])
