"""What a check of data finds, as data. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptconv.errors import UsageError


@dataclass(frozen=True)
class DataProblem:
    """Why nothing can be measured: a sentence about one file or one line of the config, and what to type."""

    text: str
    hint: str


@dataclass
class DataFindings:
    """Problems, and notes on what may be intended. The checks fill it, in their order."""

    problems: list[DataProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, text: str, hint: str) -> None:
        problem = DataProblem(text, hint)
        if problem not in self.problems:
            self.problems.append(problem)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def require_none(self) -> None:
        """Raises UsageError with the first problem; its hint names the others."""
        if not self.problems:
            return
        first, *others = self.problems
        lines = [first.hint]
        hints = {first.hint}
        for other in others:
            lines.append(f"Also: {other.text}." + (f" {other.hint}" if other.hint not in hints else ""))
            hints.add(other.hint)
        raise UsageError(first.text, "\n".join(lines))
