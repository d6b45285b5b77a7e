"""What `check` found, as data: the verdict on a config, and a report on each module. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ckptconv.mmdetection.check.evidence import Finding
from ckptconv.mmdetection.config.training_commands import Training
from ckptconv.sources.file import Transfer

_VERDICTS = {
    (True, True): "the detector starts from its checkpoint",
    (False, True): "the detector does not start as it should",
    (False, False): "not proved: check cannot tell how the detector starts",
}


@dataclass(frozen=True)
class ModuleReport:
    """One module: its path in the detector, its network, its file, how many of its tensors are equal, the findings."""

    module: str
    network: str
    checkpoint: str
    prefix: str
    equal: int
    total: int
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


@dataclass(frozen=True)
class CheckReport:
    """The verdict on a config. ``problems`` and ``notes`` are those of the detector as a whole.

    ``transfers`` is what was fetched. ``training``: the commands that train, for a verdict that is good.
    """

    config: str
    detector: str
    modules: tuple[ModuleReport, ...]
    problems: tuple[Finding, ...]
    transfers: tuple[Transfer, ...] = ()
    training: Training | None = None
    notes: tuple[Finding, ...] = ()

    @property
    def good(self) -> bool:
        return not self.findings

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every problem, of a module or of the whole."""
        return (*(problem for module in self.modules for problem in module.problems), *self.problems)

    @property
    def proved(self) -> bool:
        """Whether it is certain how the detector starts, right or wrong."""
        return self.good or any(finding.certain for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return _VERDICTS[self.good, self.proved]
