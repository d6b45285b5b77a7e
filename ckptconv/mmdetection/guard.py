"""A hook that stops a training whose detector does not start from the checkpoint its config was made for.

It is a part of the training: ``custom_imports`` names this module, ``custom_hooks`` the hook. What it compares, and
when: `mmengine/runner/runner.py` 0.10.7 builds, wraps, initialises (and hands rank 0's values to all), loads or
resumes, and then calls `before_train`. So every rank sees the same model and comes to the same verdict by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ckptconv.errors import CkptconvError, ProofError
from ckptconv.folding import some
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection.compare import Site, compare, sites
from ckptconv.mmdetection.pretrained import section_of
from ckptconv.transform import as_they_are
from ckptconv.witness import fingerprint

_MEND = "Emit the config again for the file that is meant: ckptconv emit-config; or look closer: ckptconv check CONFIG"


@HOOKS.register_module()
class CheckpointGuard(Hook):  # type: ignore[misc]  # mmengine has no annotations
    """Compares, once and before the first iteration, the file with its fingerprint and the modules with the file.

    Args:
        fingerprint: of the checkpoint, as `emit-config` writes it: 64 hex digits. ``convert`` prints the first 16.
        modules: paths of the modules that must start from it; whatever else is pretrained is not its business.
    """

    priority = "LOWEST"  # behind every hook that could still change a weight

    def __init__(self, fingerprint: str, modules: Sequence[str] = ("backbone",)) -> None:
        self.fingerprint, self.modules = fingerprint, tuple(modules)

    def before_train(self, runner) -> None:  # type: ignore[no-untyped-def]
        """Raises ProofError if the detector's weights are not the checkpoint's."""
        if runner.iter > 0:
            runner.logger.info(f"guard: resumed at iteration {runner.iter}, behind the pretrained checkpoint")
            return
        try:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            found = {site.path: site for site in sites(model) if site.path in self.modules}
            for module in self.modules:
                if module not in found:
                    raise _stopped(f"{module} is not initialised from a checkpoint")
                count = self._prove(found[module], found.values(), runner._load_from)
                runner.logger.info(f"guard: {count}/{count} tensors of {module} equal {found[module].checkpoint}")
        except CkptconvError as error:
            runner.logger.error(f"guard: {error.message}")
            raise

    def _prove(self, site: Site, found: Iterable[Site], loaded: str | None) -> int:
        with open_checkpoint(Path(site.checkpoint).expanduser()) as checkpoint:
            mark = fingerprint(as_they_are(section_of(checkpoint), checkpoint))
            if mark != self.fingerprint:
                raise _stopped(
                    f"{site.checkpoint} is not the file this config was made for "
                    f"(its fingerprint is {mark[:16]}, not {self.fingerprint[:16]})"
                )
            result = compare(site, checkpoint, found)
        if result.wrong:
            cause = f": load_from={loaded!r} came after it" if loaded else ""
            raise _stopped(
                f"{len(result.wrong)} of {result.total} tensors of {site.path} are not those of "
                f"{site.checkpoint}{cause}: {some(result.wrong, 3)}"
            )
        return len(result.equal)


def _stopped(why: str) -> ProofError:
    return ProofError(f"stopped before the first iteration: {why}", _MEND)
