"""What `check` found, as data: the verdict on a config, and a report on each module. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
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
class DetectorPart:
    """A module of the detector, and how many numbers of its parameters start in which way.

    ``path`` in the detector; 'backbone, by itself' are parameters of a module whose other parts have rows of their own.
    ``parameters`` counts tensors. Of ``numel`` numbers, ``from_file`` are equal to a checkpoint's, ``wrong`` were to
    be; the others start as their classes do. ``frozen`` are not trained. ``rates``: the lowest and the highest learning
    rate, or () where none is known.
    """

    path: str
    class_name: str
    parameters: int
    numel: int
    from_file: int
    wrong: int
    frozen: int
    rates: tuple[float, ...]


@dataclass(frozen=True)
class RateGroup:
    """Parameters that are trained at one rate, and the detector's parts that they are in.

    Of a part that has other groups, too, it is said how many of its tensors are in this one.
    """

    lr: float
    weight_decay: float
    parameters: int
    numel: int
    modules: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """The verdict on a config. ``problems`` and ``notes`` are those of the detector as a whole.

    ``transfers`` is what was fetched. ``training``: the commands that train, for a verdict that is good. ``parts`` are
    the detector's modules; ``rates`` are the groups of its optimizer, or ``rates_unknown`` says why there are none.
    """

    config: str
    detector: str
    modules: tuple[ModuleReport, ...]
    problems: tuple[Finding, ...]
    transfers: tuple[Transfer, ...] = ()
    training: Training | None = None
    notes: tuple[Finding, ...] = ()
    parts: tuple[DetectorPart, ...] = ()
    rates: tuple[RateGroup, ...] = ()
    rates_unknown: str = ""

    def to_html(self, say: Callable[[str], str] = str) -> str:
        """The page about it, which loads nothing. ``say`` spells the parameters and calls in its sentences."""
        from ckptconv.mmdetection.check.page import page

        return page(self, say)

    def _repr_html_(self) -> str:
        from ckptconv.mmdetection.check.page import small

        return small(self)

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
