"""Whether a network gets images as it was trained on them, and reads them with the strides it learned. No torch.

FIELD report: moco #117 (BGR).
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptconv.methods.interface import Pixels
from ckptconv.mmdetection.check.evidence import Finding, ModuleEvidence
from ckptconv.mmdetection.check.measured_input import ModelInput


def problems(e: ModuleEvidence) -> Iterator[Finding]:
    """The first pipeline whose images differ, and strides in other convolutions."""
    if e.pixels is not None:
        compared = (_pixels(e, e.pixels, got) for got in (e.model_input, *e.model_input.also))
        yield from next(([finding] for finding in compared if finding), [])
        yield from _strides(e)


def words(got: ModelInput) -> str:
    """'RGB with mean [123.675, 116.28, 103.53] and std [58.395, 57.12, 57.375]'."""
    return f"{got.order} with mean {[*got.mean]} and std {[*got.std]}"


def _pixels(e: ModuleEvidence, wanted: Pixels, got: ModelInput) -> Finding | None:
    right = ModelInput(wanted.order, wanted.mean, wanted.std)
    trained = f"{e.trained_as} was trained on {words(right)}"
    usual = got.preprocessor == "DetDataPreprocessor"
    if got.unknown:
        return Finding(
            f"not proved: the input of the network cannot be measured ({got.unknown}); {trained}",
            (_fix(e, wanted, got),),
            certain=False,
        )
    if got.like(right):
        return None
    parts = (*got.steps, got.preprocessor, *(("its own code",) if got.inside else ()))
    through = f", through {' and '.join(parts)}" if got.steps or not usual or got.inside else ""
    return Finding(f"the network gets {words(got)}{through}; {trained}", (_fix(e, wanted, got),))


def _fix(e: ModuleEvidence, wanted: Pixels, got: ModelInput) -> str:
    if got.inside:
        return f"Change the code of {e.detector} and {e.class_name}: keep the channels as the preprocessor gives them"
    if of_class := next((line for line in got.removals if line.startswith("Give ")), ""):
        return of_class
    if got.unknown.startswith("the data set "):
        return "Change the data set: take its images through its pipeline"
    kind = "" if got.preprocessor == "DetDataPreprocessor" else "type='DetDataPreprocessor', "
    batch = ", batch_augments=None" if got.batch else ""
    settings = f"mean={list(wanted.mean)}, std={list(wanted.std)}, bgr_to_rgb={wanted.order == 'RGB'}"
    return "; ".join((*dict.fromkeys(got.removals), f"{e.preprocessor_path}: {kind}{settings}{batch}"))


def _strides(e: ModuleEvidence) -> Iterator[Finding]:
    if e.style == "caffe" and any(name.endswith("conv3.weight") for name in e.module_specs):
        yield Finding(
            f"style='caffe' puts the strides in the 1x1 convolutions; {e.trained_as} was trained with strides in the "
            "3x3 convolutions: the names are the same, the features are not",
            (f"{e.config_path}: style='pytorch'",),
        )
