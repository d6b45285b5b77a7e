"""What a check of data finds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptconv.errors import UsageError


@dataclass(frozen=True)
class Problem:
    """Why nothing can be measured: a sentence about one file or one line of the config, and what to type."""

    text: str
    hint: str


@dataclass
class Findings:
    """Problems; and notes, on what may be meant and is worth a look. The checks fill it, in their order."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, text: str, hint: str) -> None:
        found = Problem(text, hint)
        if found not in self.problems:
            self.problems.append(found)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def require_none(self) -> None:
        """Raises UsageError with the first problem; its hint names the others."""
        if not self.problems:
            return
        first, *others = self.problems
        lines = [first.hint]
        said = {first.hint}
        for other in others:
            lines.append(f"Also: {other.text}." + (f" {other.hint}" if other.hint not in said else ""))
            said.add(other.hint)
        raise UsageError(first.text, "\n".join(lines))

    def data(self) -> Mapping[str, Any]:
        """For JSON."""
        return {"problems": [{"text": p.text, "hint": p.hint} for p in self.problems], "notes": list(self.notes)}
