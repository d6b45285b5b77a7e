"""The parts of a detector before its first iteration: what is from a file, what is frozen, and the learning rates.

The rates are those of the groups that mmengine's own constructor makes from the config's ``optim_wrapper``. Knows torch
and mmengine; judges nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptconv.mmdetection import runtime
from ckptconv.mmdetection.check.verdict import DetectorPart, RateGroup

if TYPE_CHECKING:
    import torch

    from ckptconv.mmdetection.check.compare import Comparison
    from ckptconv.mmdetection.check.detector_evidence import DetectorEvidence
    from ckptconv.mmdetection.check.init_cfg import LoadedModule

_DEEPEST = 3
_OF_WRAPPER = ("optimizer", "constructor", "paramwise_cfg")
"""What of an ``optim_wrapper`` the groups depend on. The rest needs a GPU, or a training."""
_Groups = list[tuple[float, float, list[str]]]
"""Learning rate, weight decay, names."""
_Trained = Mapping[str, int]


@dataclass(frozen=True)
class DetectorStart:
    """How the modules start, and the groups of the optimizer, or why they are unknown."""

    parts: tuple[DetectorPart, ...]
    rates: tuple[RateGroup, ...]
    rates_unknown: str


def detector_start(evidence: DetectorEvidence) -> DetectorStart:
    """The detector's modules, and those inside a module whose parts do not all start in one way."""
    model = evidence.start.model
    compared = [(module, evidence.comparisons[i]) for i, (module, _) in enumerate(evidence.modules)]
    groups, unknown = _groups(model, evidence.settings)
    rates = {name: lr for lr, _, names in groups for name in names}
    rows = list(_Parts(model, compared, rates).rows())
    return DetectorStart(tuple(part for part, _ in rows), tuple(_rate_groups(groups, rows)), unknown)


class _Parts:
    """One detector and what is known of its parameters, by their full names."""

    def __init__(
        self, model: torch.nn.Module, compared: Iterable[tuple[LoadedModule, Comparison]], rates: Mapping[str, float]
    ) -> None:
        self._model, self._rates = model, rates
        self._loaded, self._equal, self._wrong = set[str](), set[str](), set[str]()
        for module, comparison in compared:
            self._loaded.add(module.path)
            self._equal.update(map(module.full_name, comparison.equal))
            wrong = (*comparison.differing, *comparison.size_mismatch, *comparison.missing)
            self._wrong.update(map(module.full_name, wrong))

    def rows(self, path: str = "", depth: int = 0) -> Iterator[tuple[DetectorPart, _Trained]]:
        """Each part, and the sizes of its trained parameters by their names."""
        module = self._model.get_submodule(path)
        inside = dict(module.named_parameters(prefix=path))
        children = [f"{path}.{name}".lstrip(".") for name, _ in module.named_children()]
        below = {name for name in inside for child in children if name.startswith(f"{child}.")}
        if depth and (depth == _DEEPEST or not below or not (path in self._loaded or self._is_mixed(inside))):
            yield self._row(path, module, inside)
            return
        for child in children:
            if any(name.startswith(f"{child}.") for name in inside):
                yield from self.rows(child, depth + 1)
        own = {name: value for name, value in inside.items() if name not in below}
        if own:
            yield self._row(f"{path or 'the detector'}, by itself", module, own)

    def _is_mixed(self, inside: Mapping[str, Any]) -> bool:
        """Whether its parameters do not all start from a file, or are not all trained."""
        kinds = {(name in self._equal, name in self._wrong, value.requires_grad) for name, value in inside.items()}
        return len(kinds) > 1

    def _row(self, path: str, module: torch.nn.Module, inside: Mapping[str, Any]) -> tuple[DetectorPart, _Trained]:
        def numel(names: Collection[str]) -> int:
            return sum(value.numel() for name, value in inside.items() if name in names)

        frozen = [name for name, value in inside.items() if not value.requires_grad]
        trained = {name: value.numel() for name, value in inside.items() if value.requires_grad}
        rates = sorted({self._rates[name] for name in trained if name in self._rates})
        part = DetectorPart(
            path=path,
            class_name=type(module).__name__,
            parameters=len(inside),
            numel=numel(inside),
            from_file=numel(self._equal),
            wrong=numel(self._wrong),
            frozen=numel(frozen),
            rates=(rates[0], rates[-1]) if rates else (),
        )
        return part, trained


def _groups(model: torch.nn.Module, settings: Any) -> tuple[_Groups, str]:
    """Learning rate, weight decay and names of the trained parameters; or none, and the reason why they are unknown."""
    config = settings.get("optim_wrapper")
    if not isinstance(config, Mapping) or "optimizer" not in config:
        return [], "the config has no optim_wrapper with one optimizer"
    from mmengine.config import ConfigDict
    from mmengine.optim import build_optim_wrapper

    wrapper = {"type": "OptimWrapper", **{name: config[name] for name in _OF_WRAPPER if name in config}}
    names = {id(value): name for name, value in model.named_parameters() if value.requires_grad}
    found: dict[tuple[float, float], list[str]] = {}
    try:
        with runtime.quiet():
            built = build_optim_wrapper(model, ConfigDict(wrapper)).param_groups
        for group in built:
            key = (float(group["lr"]), float(group.get("weight_decay", 0.0)))
            found.setdefault(key, []).extend(names[id(value)] for value in group["params"] if id(value) in names)
    except Exception as error:  # an optimizer or a constructor of the user's may raise anything
        return [], runtime.error_line(error)
    return [(lr, decay, inside) for (lr, decay), inside in sorted(found.items(), reverse=True) if inside], ""


def _rate_groups(groups: _Groups, rows: Sequence[tuple[DetectorPart, _Trained]]) -> Iterator[RateGroup]:
    for lr, decay, names in groups:
        inside = [(part, trained, trained.keys() & set(names)) for part, trained in rows]
        modules = [
            part.path if len(mine) == len(trained) else f"{part.path} ({len(mine)} of {len(trained)})"
            for part, trained, mine in inside
            if mine
        ]
        numel = sum(trained[name] for _, trained, mine in inside for name in mine)
        yield RateGroup(lr, decay, len(names), numel, tuple(modules))
