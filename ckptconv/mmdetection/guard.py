"""A hook that stops a training whose detector does not start from the checkpoint its config was made for.

It is a part of the training: ``custom_imports`` names this module, ``custom_hooks`` the hook. What it compares, and
when: `mmengine/runner/runner.py` 0.10.7 builds, wraps, initialises (and hands rank 0's values to all), loads or
resumes, and then calls `before_train`. So every rank sees the same model and comes to the same verdict by itself.
"""

from __future__ import annotations

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
    """Compares, once and before the first iteration, the file with its fingerprint and the detector with the file.

    Args:
        fingerprint: what `ckptconv convert` printed and `emit-config` wrote: 64 hex digits.
    """

    priority = "LOWEST"  # behind every hook that could still change a weight

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def before_train(self, runner) -> None:  # type: ignore[no-untyped-def]
        """Raises ProofError if the detector's weights are not the checkpoint's."""
        if runner.iter > 0:
            runner.logger.info(f"guard: resumed at iteration {runner.iter}, behind the pretrained checkpoint")
            return
        try:
            self._prove(runner)
        except CkptconvError as error:
            runner.logger.error(f"guard: {error.message}")
            raise

    def _prove(self, runner) -> None:  # type: ignore[no-untyped-def]
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        found = sites(model)
        if not found:
            raise ProofError(
                "stopped before the first iteration: nothing in the detector is initialised from a checkpoint", _MEND
            )
        for site in found:
            count = self._prove_site(site, runner)
            runner.logger.info(f"guard: {count}/{count} tensors of {site.path} equal {site.checkpoint}")

    def _prove_site(self, site: Site, runner) -> int:  # type: ignore[no-untyped-def]
        with open_checkpoint(Path(site.checkpoint).expanduser()) as checkpoint:
            mark = fingerprint(as_they_are(section_of(checkpoint), checkpoint))
            if mark != self.fingerprint:
                raise ProofError(
                    f"stopped before the first iteration: {site.checkpoint} is not the file this config was made for "
                    f"(its fingerprint is {mark[:16]}, not {self.fingerprint[:16]})",
                    _MEND,
                )
            result = compare(site, checkpoint)
        wrong = [*result.differing, *result.reshaped, *result.missing]
        if wrong:
            cause = f": load_from={runner._load_from!r} came after it" if runner._load_from else ""
            raise ProofError(
                f"stopped before the first iteration: {len(wrong)} of {result.total} tensors of {site.path} are not "
                f"those of {site.checkpoint}{cause}: {some(wrong, 3)}",
                _MEND,
            )
        return len(result.equal)
