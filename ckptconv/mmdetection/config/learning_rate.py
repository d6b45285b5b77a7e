"""The optimizer and its learning rate: the network's own where SGD does not train it, and for other batches. Pure."""

from __future__ import annotations

from ckptconv.arguments import argument
from ckptconv.errors import UsageError
from ckptconv.mmdetection.config.detectors import Detector, value_at
from ckptconv.mmdetection.config.edits import Changes
from ckptconv.mmdetection.config.network import TrainingRecipe
from ckptconv.mmdetection.config.options import Choices

_AT = "optim_wrapper"


def set_optimizer(changes: Changes, training: TrainingRecipe, images: int, family: str) -> float:
    """Replace the base's SGD by the network's own optimizer; its learning rate for so many images a step."""
    rate = float(f"{training.lr * images / 16:.6g}")
    changes.set(f"{_AT}.optimizer._delete_", True)
    note = f"SGD does not train a {family}: as MMDetection's {training.source}."
    for key, value in {"type": training.optimizer["type"], "lr": rate, **training.optimizer}.items():
        changes.set(f"{_AT}.optimizer.{key}", value, note if key == "type" else "")
    set_wrapper(changes, training)
    return rate


def set_wrapper(changes: Changes, training: TrainingRecipe) -> None:
    """Add what surrounds the network's own optimizer."""
    for key, value in training.wrapper.items():
        changes.set(f"{_AT}.{key}", value, training.decays if key == "paramwise_cfg" else "")


def scale_learning_rate(changes: Changes, detector: Detector, choices: Choices, rate: float | None) -> float | None:
    """Scale the rate to the user's batches by the linear rule (arXiv:1706.02677); the rate that is written.

    Raises UsageError for a base without a learning rate.
    """
    if choices.batch_size is None and choices.gpus is None:
        return rate
    if rate is None:
        raise UsageError(
            f"{choices.base} does not have a learning rate to scale",
            f"Leave out {argument('batch_size')} and {argument('gpus')}.",
        )
    batch, counts = choices.batch_size or detector.batch_size, detector.accumulative_counts
    gpus = choices.gpus or _gpus(detector)
    images = batch * gpus * counts
    product = " x ".join(map(str, (gpus, batch, *([counts] if counts > 1 else []))))
    scaled = float(f"{rate * images / detector.images:.6g}")
    changes.set("train_dataloader.batch_size", batch)
    changes.set(
        f"{_AT}.optimizer.lr",
        scaled,
        f"Linear rule: {rate:g} for {detector.images} images a step, here {product} = {images}.",
    )
    note = "The rate above is scaled already."
    if counts > 1:
        note = f"{note} Leave enable off: MMDetection does not count accumulated batches."
        if value_at(detector.found, "auto_scale_lr.enable"):
            changes.set("auto_scale_lr.enable", False)
    if changes.had("auto_scale_lr") is None:
        changes.put("auto_scale_lr", {"base_batch_size": images}, {"base_batch_size": note})
    else:
        changes.set("auto_scale_lr.base_batch_size", images, note)
    return scaled


def images_per_step(detector: Detector, choices: Choices) -> int:
    """Images of a step, over all GPUs and accumulated batches, as the user wants them or as the base has them."""
    if choices.batch_size is None and choices.gpus is None:
        return detector.images
    batch = choices.batch_size or detector.batch_size
    return batch * (choices.gpus or _gpus(detector)) * detector.accumulative_counts


def _gpus(detector: Detector) -> int:
    """The GPUs that the base is for."""
    return max(detector.images // (detector.batch_size * detector.accumulative_counts), 1)
