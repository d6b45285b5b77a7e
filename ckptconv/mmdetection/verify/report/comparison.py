"""Several reports of verify-ap, read from their folders, and what differs between them. Imports no torch.

Configs are read as text: nothing in them is executed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeGuard

from ckptconv.errors import UnreadableError, UsageError
from ckptconv.mmdetection.verify.report.report import VerificationReport, from_json
from ckptconv.mmdetection.verify.run.files import CONFIG

REPORT = "report.json"
_ABSENT = ""
_SAME_FACTS = ("recipe", "data", "proof", "detector")


@dataclass(frozen=True)
class Compared:
    """One report, the folder it is from, and its config by dotted paths; () where there is none."""

    folder: str
    report: VerificationReport
    config: Mapping[str, str]

    def mean(self, metric: str, group: str) -> float | None:
        """Mean AP of a group's runs."""
        values = [run.ap.get(metric) for run in self.report.runs if run.group == group]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of its runs."""
        return tuple(dict.fromkeys(run.group for run in self.report.runs))


@dataclass(frozen=True)
class Difference:
    """A value that is not the same in all reports: its path, and what each one has, '' for nothing."""

    path: str
    values: tuple[str, ...]


def read(folders: Sequence[str | Path]) -> tuple[Compared, ...]:
    """The reports in these work dirs, in this order.

    Raises UsageError for a folder without a report, UnreadableError for a report that cannot be read.
    """
    return tuple(_read(Path(folder)) for folder in folders)


def _read(folder: Path) -> Compared:
    path = folder if folder.name == REPORT else folder / REPORT
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(body, Mapping):
            raise TypeError("not an object")
        report = from_json(body)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"there is no {REPORT} in {folder}", "Give the work dir of a verify-ap that has ended."
        ) from None
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}", "Check the path.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UnreadableError(
            f"{path} is not a report of verify-ap: {what}", "Type the same verify-ap again."
        ) from None
    return Compared(str(folder), report, _config(path.with_name(CONFIG)))


def _config(path: Path) -> Mapping[str, str]:
    """The assignments of a config as text, by dotted paths; nothing for a file that is missing or is not Python."""
    pairs: dict[str, str] = {}
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                pairs.update(_flat(node.value, node.targets[0].id))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return {}
    return pairs


def _flat(node: ast.expr, path: str) -> Iterator[tuple[str, str]]:
    children = list(_children(node))
    if not children:
        yield path, ast.unparse(node)
    for name, child in children:
        yield from _flat(child, f"{path}{name}")


def _children(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """What is inside of a dict, and of a list of dicts."""
    if _is_dict_call(node):
        yield from ((f".{one.arg}", one.value) for one in node.keywords if one.arg)
    elif isinstance(node, ast.Dict):
        yield from ((f".{ast.unparse(k)}", v) for k, v in zip(node.keys, node.values, strict=True) if k is not None)
    elif isinstance(node, ast.List | ast.Tuple) and any(
        isinstance(one, ast.Dict) or _is_dict_call(one) for one in node.elts
    ):
        yield from ((f"[{i}]", one) for i, one in enumerate(node.elts))


def _is_dict_call(node: ast.expr) -> TypeGuard[ast.Call]:
    """Whether it is ``dict(name=…)``."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args


def config_differences(compared: Sequence[Compared]) -> list[Difference]:
    """What is not the same in all configs. One that could not be read differs in nothing."""
    known = [one for one in compared if one.config]
    paths = dict.fromkeys(path for one in known for path in one.config)
    found = []
    for path in paths:
        values = {one.config.get(path, _ABSENT) for one in known}
        if len(values) > 1:
            found.append(Difference(path, tuple(one.config.get(path, _ABSENT) for one in compared)))
    return found


def fact_differences(compared: Sequence[Compared]) -> list[Difference]:
    """What is not the same of the proof, the recipe, the data and the environments."""
    facts = [dict(_facts(one.report)) for one in compared]
    names = dict.fromkeys(name for one in facts for name in one)
    found = (Difference(name, tuple(one.get(name, _ABSENT) for one in facts)) for name in names)
    return [one for one in found if len(set(one.values)) > 1]


def _facts(report: VerificationReport) -> Iterator[tuple[str, str]]:
    yield "tier", report.tier
    for name in _SAME_FACTS:
        part = getattr(report, name)
        yield from _said(f"{name}.", asdict(part) if part is not None else {})
    for run in report.runs[:1]:
        yield from _said("environment.", run.environment)


def _said(start: str, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return ((f"{start}{name}", str(value)) for name, value in values.items() if value not in (None, "", ()))
