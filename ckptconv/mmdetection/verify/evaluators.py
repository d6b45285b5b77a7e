"""A config's evaluators -> the one CocoMetric whose AP is measured, or why there is none. Pure.

Sources: mmengine 0.10.7, `Runner.build_evaluator`; mmdet 3.3.0, `mmdet/evaluation/metrics/coco_metric.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptconv.errors import UsageError
from ckptconv.mmdetection.type_names import has_type, type_name
from ckptconv.mmdetection.verify.measure import DEFAULT_LIMIT

_ONE = "Leave one CocoMetric in val_evaluator: verify-ap measures COCO's AP only."
_METRICS = ("bbox", "segm", "proposal", "proposal_fast")
_ITEMS = (
    *("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"),
    *("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000"),
)
_IRRELEVANT = (
    "type",
    "prefix",
    "outfile_prefix",
    "collect_device",
    "_scope_",
)  # where results go, and not what they are


def with_single_metric(config: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The same config with its CocoMetric as ``val_evaluator``, which mmengine takes as a list, or inside an Evaluator.

    Raises UsageError, with the config's line, where there is none, or more than one metric.
    """
    path, value = "val_evaluator", config.get("val_evaluator")
    if isinstance(value, Mapping) and "metrics" in value:
        if type_name(value) not in ("", "Evaluator"):
            raise UsageError(f"{target}: val_evaluator.type is {type_name(value)}, which is not one CocoMetric", _ONE)
        path, value = f"{path}.metrics", value["metrics"]
    metrics = list(value) if isinstance(value, list) else [value]
    paths = [f"{path}[{i}]" for i in range(len(metrics))] if isinstance(value, list) else [path]
    if value is None or not metrics:
        empty = "is an empty list" if value is not None else "is not set"
        raise UsageError(
            f"{target}: {path} {empty}", "Set val_evaluator = dict(type='CocoMetric', ann_file=FILE, metric='bbox')."
        )
    for where, metric in zip(paths, metrics, strict=True):
        if not has_type(metric, "CocoMetric"):
            wrong = f"type is {type_name(metric)}, which is not CocoMetric" if type_name(metric) else "type is missing"
            raise UsageError(f"{target}: {where}.{wrong}", _ONE)
    if len(metrics) > 1:
        raise UsageError(f"{target}: {paths[1]} is a second CocoMetric, so it is not clear which AP counts", _ONE)
    (metric,) = metrics
    assert isinstance(metric, Mapping)  # for it has a name
    return {**config, "val_evaluator": dict(metric)}


def require_box_ap(evaluator: Mapping[str, Any], target: str) -> None:
    """Raises UsageError for a CocoMetric that does not measure box AP."""
    metric = evaluator.get("metric", "bbox")
    unknown = [m for m in (metric if isinstance(metric, list) else [metric]) if m not in _METRICS]
    if unknown:
        raise UsageError(
            f"{target}: val_evaluator.metric={metric!r}: CocoMetric does not take {unknown[0]!r}",
            "Set it to 'bbox', or to ['bbox', 'segm'].",
        )
    if "bbox" not in metric:
        raise UsageError(
            f"{target}: val_evaluator.metric={metric!r} does not measure box AP",
            "Set it to 'bbox', or to ['bbox', 'segm'].",
        )


def require_measurable(evaluator: Mapping[str, Any], target: str) -> None:
    """Raises UsageError, with the line, for settings with which CocoMetric has no AP, or not COCO's."""
    for setting, wrong, hint in _unmeasurable(evaluator):
        raise UsageError(f"{target}: val_evaluator.{setting}={evaluator.get(setting)!r}: {wrong}", hint)


def _unmeasurable(evaluator: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Settings, what is wrong with each, and what to do."""
    get = evaluator.get
    if not isinstance(get("ann_file"), str):
        yield (
            "ann_file",
            "it must name a file in COCO's format",
            "Set it to the annotation file of val_dataloader.",
        )
    backend = get("backend_args") or {}
    if not isinstance(backend, Mapping) or backend.get("backend", "local") not in ("local", "disk", "LocalBackend"):
        yield "backend_args", "verify-ap reads annotations from the disk of this machine", "Set it to None."
    if get("format_only"):
        yield "format_only", "with it, CocoMetric evaluates nothing", "Set it to False."
    if get("iou_thrs") is not None:
        yield "iou_thrs", "COCO's AP is the mean over 0.50, 0.55, …, 0.95", "Leave it out."
    if get("file_client_args") is not None:
        yield "file_client_args", "CocoMetric refuses it", "Leave it out."
    items = get("metric_items") or ()
    if any(item not in _ITEMS for item in items):
        yield "metric_items", "CocoMetric does not know all of them", "Leave it out."
    limits = get("proposal_nums", (DEFAULT_LIMIT, 300, 1000))
    numbers = isinstance(limits, Sequence) and all(isinstance(n, int) and n > 0 for n in limits)
    if not numbers or not limits:
        yield "proposal_nums", "it must be numbers of detections", "Leave it out."
    elif not get("use_mp_eval") and (DEFAULT_LIMIT not in limits or len(limits) < 3):
        yield (
            "proposal_nums",
            f"CocoMetric needs three limits for an AP, and one must be {DEFAULT_LIMIT}",
            "Leave it out, or set it to (100, 300, 1000).",
        )


def other_test_parts(config: Mapping[str, Any]) -> Iterator[str]:
    """Where ``test_dataloader`` and ``test_evaluator`` would measure something else, by dotted path."""
    parts: list[tuple[str, Any, Any]] = []
    if isinstance(loader := config.get("test_dataloader"), Mapping):
        val = config.get("val_dataloader") or {}
        parts.append(("test_dataloader.dataset", loader.get("dataset"), val.get("dataset")))
    if test := config.get("test_evaluator"):
        one = test[0] if isinstance(test, list) and len(test) == 1 else test
        parts.append(("test_evaluator", one, config.get("val_evaluator")))
    for path, test, val in parts:
        yield from _different(path, test, val)


def _different(path: str, one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other} - set(_IRRELEVANT if path == "test_evaluator" else ("_scope_",))):
            yield from _different(f"{path}.{key}", one.get(key), other.get(key))
        if path == "test_evaluator" and type_name(one) != type_name(other):
            yield f"{path}.type"
    elif one != other:
        yield path
