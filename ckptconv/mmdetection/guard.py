"""A hook that stops a training whose detector does not start from the checkpoint its config was made for.

It is a part of the training: ``custom_imports`` names this module, ``custom_hooks`` the hook.
`mmengine/runner/runner.py`, 0.10.7, builds, wraps, initialises (and sends rank 0's values to all ranks), loads or
resumes, and then calls `before_train`. So every rank has the same model and comes to the same verdict by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ckptconv.conversion.converted import Converted
from ckptconv.errors import CkptconvError, ProofError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection.check import guard_record
from ckptconv.mmdetection.check.compare import compare
from ckptconv.mmdetection.check.init_cfg import LoadedModule, modules_with_init_cfg
from ckptconv.text import some

_FIX = "Write the config again for the right file: ckptconv emit-config; or see what differs: ckptconv check CONFIG"
_RESUMED = "Resume it with its own config, or start from the checkpoint: resume=False and load_from=None."


@HOOKS.register_module()
class CheckpointGuard(Hook):  # type: ignore[misc]  # mmengine has no annotations
    """Compares, before the first iteration, the file with its fingerprint and the modules with the file.

    Each checkpoint that the training saves records that this was proved. On resume, the record is compared.

    Args:
        fingerprint: of the checkpoint, as `emit-config` writes it: 64 hex digits. ``convert`` prints the first 16.
        modules: paths of the modules that must start from it. Others are not compared.
    """

    priority = "LOWEST"  # after every hook that could still change a weight

    def __init__(self, fingerprint: str, modules: Sequence[str] = ("backbone",)) -> None:
        self.fingerprint, self.modules = fingerprint, tuple(modules)
        self._record: Mapping[str, str] = {}
        self._proved = False

    def before_run(self, runner) -> None:  # type: ignore[no-untyped-def]
        """Moves this hook to the end, after the others of the lowest priority."""
        runner._hooks = [
            *(hook for hook in runner._hooks if hook is not self),
            self,
        ]  # mmengine iterates over the old list

    def after_load_checkpoint(self, runner, checkpoint) -> None:  # type: ignore[no-untyped-def]
        """Reads what an earlier guard wrote into the checkpoint that is resumed."""
        meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
        self._record = guard_record.read(meta.get(guard_record.KEY) if isinstance(meta, Mapping) else None)

    def before_train(self, runner) -> None:  # type: ignore[no-untyped-def]
        """Raises ProofError if the detector's weights are not the checkpoint's."""
        if runner.iter > 0:
            self._resume(runner)
        else:
            self._start(runner, log=True)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:  # type: ignore[no-untyped-def]
        """The same, after hooks that change weights when an epoch or an iteration begins."""
        if runner.iter == 0:
            self._start(runner, log=False)

    def before_save_checkpoint(self, runner, checkpoint) -> None:  # type: ignore[no-untyped-def]
        """Writes into the checkpoint what was proved, for a training that resumes it."""
        if self._proved:
            checkpoint.setdefault("meta", {})[guard_record.KEY] = guard_record.text(self.modules, self.fingerprint)

    def _start(self, runner, log: bool) -> None:  # type: ignore[no-untyped-def]
        try:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            loaded = {module.path: module for module in modules_with_init_cfg(model)}
            for path in self.modules:
                if path not in loaded:
                    raise _stopped(f"{path} is not initialised from a checkpoint")
                count = self._prove(loaded[path], loaded.values(), runner._load_from)
                if log:
                    runner.logger.info(f"guard: {count}/{count} tensors of {path} equal {loaded[path].checkpoint}")
        except CkptconvError as error:
            runner.logger.error(f"guard: {error.message}")
            raise
        self._proved = True

    def _resume(self, runner) -> None:  # type: ignore[no-untyped-def]
        """A resumed training has other weights: what its checkpoint records of its start is compared."""
        at = f"guard: resumed at iteration {runner.iter}"
        if not self._record:
            runner.logger.warning(
                f"{at} from a checkpoint that does not record how its training started: it is unknown whether it was "
                f"from the file with the fingerprint {self.fingerprint[:16]}"
            )
            return
        for path in self.modules:
            recorded = self._record.get(path, "")
            if recorded != self.fingerprint:
                other = f"from the file with the fingerprint {recorded[:16]}" if recorded else "without a guard"
                error = ProofError(
                    f"stopped before iteration {runner.iter + 1}: the resumed training started {path} {other}, and not "
                    f"from the file with the fingerprint {self.fingerprint[:16]}",
                    _RESUMED,
                )
                runner.logger.error(f"guard: {error.message}")
                raise error
        runner.logger.info(
            f"{at} of a training that started from the checkpoint with the fingerprint {self.fingerprint[:16]}"
        )
        self._proved = True

    def _prove(self, module: LoadedModule, all_modules: Iterable[LoadedModule], load_from: str | None) -> int:
        with open_checkpoint(Path(module.checkpoint).expanduser()) as checkpoint:
            converted = Converted.read(checkpoint)
            fingerprint = guard_record.fingerprint_in(checkpoint, converted.section)
            if fingerprint != self.fingerprint:
                has = f"its fingerprint is {fingerprint[:16]}" if fingerprint else "it has no weights for mmengine"
                raise _stopped(
                    f"{module.checkpoint} is not the file this config was made for ({has}; the "
                    f"config has {self.fingerprint[:16]})"
                )
            comparison = compare(module, checkpoint, converted, all_modules)
        wrong = comparison.wrong
        if wrong:
            cause = f" after load_from={load_from!r} was loaded" if load_from else ""
            raise _stopped(
                f"{len(wrong)} of {comparison.total} tensors of {module.path} differ from {module.checkpoint}{cause}: "
                f"{some(wrong, 3)}"
            )
        return len(comparison.equal)


def _stopped(why: str) -> ProofError:
    return ProofError(f"stopped before the first iteration: {why}", _FIX)
