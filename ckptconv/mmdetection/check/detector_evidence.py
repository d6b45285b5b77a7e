"""A detector before its first iteration, and what was compared: the findings of the whole are made from it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptconv.mmdetection.check import downloads, measured_input
from ckptconv.mmdetection.check.downloads import LocalCheckpoint
from ckptconv.mmdetection.loading.inert_load import LoadLog

if TYPE_CHECKING:
    from ckptconv.mmdetection.check.compare import Comparison
    from ckptconv.mmdetection.check.init_cfg import LoadedModule
    from ckptconv.mmdetection.check.initialisation import Start


@dataclass
class DetectorEvidence:
    """A detector before its first iteration, and what was compared: what the findings are made from.

    ``local``: each checkpoint by its name in the config. ``modules``: what starts from one, with the entries that
    another file decides; ``comparisons``: of each, by its number.
    """

    config: Path
    settings: Any
    start: Start
    local: Mapping[str, LocalCheckpoint]
    modules: tuple[tuple[LoadedModule, frozenset[str]], ...]
    model_input: measured_input.ModelInput
    log: LoadLog
    comparisons: dict[int, Comparison] = field(default_factory=dict)

    @property
    def preprocessor_path(self) -> str:
        """Where the config says what the detector's preprocessor is."""
        model = self.settings.model
        if "data_preprocessor" not in model and self.settings.get("data_preprocessor") is not None:
            return "data_preprocessor"
        inner = isinstance(model.get("data_preprocessor"), Mapping) and "data_preprocessor" in model.data_preprocessor
        return "model.data_preprocessor.data_preprocessor" if inner else "model.data_preprocessor"

    @functools.cached_property
    def other_start(self) -> Mapping[str, Any]:
        """The detector's entries after a start with other random numbers."""
        from ckptconv.mmdetection.check.initialisation import with_other_seed

        with downloads.served(self.local.values()):
            return with_other_seed(self.settings, str(self.config))

    def is_random(self, names: Iterable[str]) -> bool:
        """Whether any of these entries depends on the random numbers of the start."""
        import torch

        state, other = self.start.model.state_dict(), self.other_start
        return any(name in other and not torch.equal(other[name], state[name]) for name in names)
