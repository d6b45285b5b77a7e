"""A hook that stops a training whose detector does not start from the checkpoint its config was made for.

It is a part of the training: ``custom_imports`` names this module, ``custom_hooks`` the hook. What it compares, and
when: `mmengine/runner/runner.py` 0.10.7 builds, wraps, initialises (and hands rank 0's values to all), loads or
resumes, and then calls `before_train`. So every rank sees the same model and comes to the same verdict by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ckptconv.errors import CkptconvError, ProofError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection.check import guard_record
from ckptconv.mmdetection.check.compare import Site, compare, sites
from ckptconv.text import some

_MEND = "Emit the config again for the file that is meant: ckptconv emit-config; or look closer: ckptconv check CONFIG"

_RESUMED = "Resume it with its own config, or start from the checkpoint: resume=False and load_from=None."


@HOOKS.register_module()
class CheckpointGuard(Hook):  # type: ignore[misc]  # mmengine has no annotations
    """Compares, before the first iteration, the file with its fingerprint and the modules with the file.

    Each checkpoint that the training saves says that this was proved. On resume, that is what is compared.

    Args:
        fingerprint: of the checkpoint, as `emit-config` writes it: 64 hex digits. ``convert`` prints the first 16.
        modules: paths of the modules that must start from it; whatever else is pretrained is not its business.
    """

    priority = "LOWEST"  # behind every hook that could still change a weight

    def __init__(self, fingerprint: str, modules: Sequence[str] = ("backbone",)) -> None:
        self.fingerprint, self.modules = fingerprint, tuple(modules)
        self._record: Mapping[str, str] = {}
        self._proved = False

    def before_run(self, runner) -> None:  # type: ignore[no-untyped-def]
        """Goes behind the hooks that have the lowest priority, too."""
        runner._hooks = [*(hook for hook in runner._hooks if hook is not self), self]  # the old list is being walked

    def after_load_checkpoint(self, runner, checkpoint) -> None:  # type: ignore[no-untyped-def]
        """Reads what an earlier guard wrote into a checkpoint that is resumed."""
        meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
        self._record = guard_record.read(meta.get(guard_record.KEY) if isinstance(meta, Mapping) else None)

    def before_train(self, runner) -> None:  # type: ignore[no-untyped-def]
        """Raises ProofError if the detector's weights are not the checkpoint's."""
        if runner.iter > 0:
            self._resume(runner)
        else:
            self._start(runner, told=True)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:  # type: ignore[no-untyped-def]
        """The same, behind hooks that change weights when an epoch or an iteration begins."""
        if runner.iter == 0:
            self._start(runner, told=False)

    def before_save_checkpoint(self, runner, checkpoint) -> None:  # type: ignore[no-untyped-def]
        """Writes into the checkpoint what was proved, for whoever resumes it."""
        if self._proved:
            checkpoint.setdefault("meta", {})[guard_record.KEY] = guard_record.text(self.modules, self.fingerprint)

    def _start(self, runner, told: bool) -> None:  # type: ignore[no-untyped-def]
        try:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            found = {site.path: site for site in sites(model)}
            for module in self.modules:
                if module not in found:
                    raise _stopped(f"{module} is not initialised from a checkpoint")
                count = self._prove(found[module], found.values(), runner._load_from)
                if told:
                    runner.logger.info(f"guard: {count}/{count} tensors of {module} equal {found[module].checkpoint}")
        except CkptconvError as error:
            runner.logger.error(f"guard: {error.message}")
            raise
        self._proved = True

    def _resume(self, runner) -> None:  # type: ignore[no-untyped-def]
        """A training that goes on has other weights: what counts is what its checkpoint says of its start."""
        at = f"guard: resumed at iteration {runner.iter}"
        if not self._record:
            runner.logger.warning(
                f"{at}, from a checkpoint that does not tell how its training started: whether it was from the file "
                f"with the fingerprint {self.fingerprint[:16]} cannot be known"
            )
            return
        for module in self.modules:
            mark = self._record.get(module, "")
            if mark != self.fingerprint:
                other = f"from the file with the fingerprint {mark[:16]}" if mark else "without a guard on it"
                error = ProofError(
                    f"stopped before iteration {runner.iter + 1}: the training that is resumed started {module} "
                    f"{other}, and not from the one with {self.fingerprint[:16]}",
                    _RESUMED,
                )
                runner.logger.error(f"guard: {error.message}")
                raise error
        runner.logger.info(
            f"{at} of a training that started from the checkpoint with the fingerprint {self.fingerprint[:16]}"
        )
        self._proved = True

    def _prove(self, site: Site, found: Iterable[Site], loaded: str | None) -> int:
        with open_checkpoint(Path(site.checkpoint).expanduser()) as checkpoint:
            mark = guard_record.fingerprint_in(checkpoint)
            if mark != self.fingerprint:
                raise _stopped(
                    f"{site.checkpoint} is not the file this config was made for "
                    f"(its fingerprint is {mark[:16] or 'that of no weights'}, not {self.fingerprint[:16]})"
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
