"""The commands about detectors. Each imports what it needs itself, for `--help` does not wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptconv.cli import completion
from ckptconv.cli.options import CacheDir, Json, Report
from ckptconv.cli.spelling import spell

_DETECTOR = "The detector"
_DATA = "The data"
_TRAINING = "The training"
_VERDICT = "The verdict"


def emit_config(
    ckpt: Annotated[
        str, typer.Argument(metavar="CKPT", help="A checkpoint that `ckptconv convert` wrote.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it. Default: print it.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            "-d",
            metavar="NAME",
            help="mask-rcnn (the default), mask-rcnn-c4, faster-rcnn, cascade-mask-rcnn, cascade-rcnn, retinanet, "
            "fcos, atss, deformable-detr or dino.",
            autocompletion=completion.detectors,
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            "-s",
            metavar="NAME",
            help="1x (the default), 2x, ms-1x, ms-2x, mmselfsup or vitdet.",
            autocompletion=completion.schedules,
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="CONFIG",
            help="Any MMDetection config instead: a path or mmdet::FOLDER/FILE.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    style: Annotated[
        str,
        typer.Option(
            "--style",
            metavar="inherit|flat",
            help="On MMDetection's bases, or one file without any.",
            rich_help_panel=_DETECTOR,
        ),
    ] = "inherit",
    frozen_stages: Annotated[
        int | None,
        typer.Option(
            "--frozen-stages", metavar="N", help="-1 none, 0 the stem, 1 also layer1, …", rich_help_panel=_DETECTOR
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            "--freeze",
            metavar="all|N|none",
            help="What of the backbone is not trained: N blocks or stages.",
            rich_help_panel=_DETECTOR,
        ),
    ] = None,
    norm: Annotated[
        str,
        typer.Option(
            "--norm", metavar="SyncBN|BN|frozen", help="Batch norm of the backbone.", rich_help_panel=_DETECTOR
        ),
    ] = "SyncBN",
    num_classes: Annotated[
        int | None,
        typer.Option(
            "--num-classes", metavar="N", help="Checked against the names of the classes.", rich_help_panel=_DATA
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="A,B,C|FILE",
            help="Class names, or a file with one on each line. Default: those of the annotations.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    data_root: Annotated[
        str | None,
        typer.Option(
            "--data-root",
            metavar="DIR",
            help="The data set's folder, laid out as COCO if no file is named.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    train_ann: Annotated[
        str | None,
        typer.Option(
            "--train-ann",
            metavar="FILE",
            help="Annotations in COCO's format, with the classes' names.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    val_ann: Annotated[
        str | None,
        typer.Option(
            "--val-ann",
            metavar="FILE",
            help="Those of validation and test.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    train_images: Annotated[
        str | None,
        typer.Option(
            "--train-images",
            metavar="DIR",
            help="Default: next to the annotations, or as COCO has them.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    val_images: Annotated[
        str | None,
        typer.Option(
            "--val-images",
            metavar="DIR",
            help="Those of validation and test.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", metavar="N", help="Images a GPU; the learning rate follows.", rich_help_panel=_TRAINING
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            metavar="N",
            help="GPUs; the learning rate follows.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    amp: Annotated[
        bool,
        typer.Option(
            "--amp",
            help="Train with automatic mixed precision.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            metavar="M,M,…",
            help="Mean of the pixels: a number for each channel, or one for all.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            "--std", metavar="S,S,…", help="Their standard deviation, in the same way.", rich_help_panel=_DATA
        ),
    ] = None,
    no_guard: Annotated[bool, typer.Option("--no-guard", help="Leave out the hook that proves the start.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace FILE if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write the MMDetection config that trains a detector on CKPT."""
    from ckptconv.cli import waiting

    with waiting.stage(f"writing a config for {ckpt}", as_json):
        from ckptconv.cli import render_detection
        from ckptconv.mmdetection.config import emit
        from ckptconv.mmdetection.config.options import choose

        choices = choose(
            detector=detector,
            schedule=schedule,
            base=base,
            style=style,
            frozen_stages=frozen_stages,
            freeze=freeze,
            norm=norm,
            num_classes=num_classes,
            classes=classes,
            data_root=data_root,
            train_ann=train_ann,
            val_ann=val_ann,
            train_images=train_images,
            val_images=val_images,
            batch_size=batch_size,
            gpus=gpus,
            amp=amp,
            mean=mean,
            std=std,
            guard=not no_guard,
        )
        emitted = emit.emit(ckpt, choices) if out is None else emit.write(ckpt, out, choices, force)
    if out is None:
        render_detection.config_text(emitted, as_json)
    else:
        render_detection.config_written(emitted, out, as_json)


def check(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A detector's config.", show_default=False)],
    report: Report = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace FILE.html if it exists.")] = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Build CONFIG's detector, initialise it, and compare it with its checkpoint, tensor by tensor.

    A checkpoint behind https:// is downloaded into the cache.
    """
    from ckptconv.cli import waiting

    with waiting.stage(f"reading {config}", as_json) as stage:
        from ckptconv.cli import render_detection, render_sources
        from ckptconv.conversion.report.write import check_report, write_report
        from ckptconv.mmdetection.check.run import check

        page = None if report is None else check_report(report, force, [config])
        with render_sources.fetching(whole=True, cache_dir=cache_dir) as fetching:
            found = check(config, stage.making_room(fetching), stage)
        if page is not None:
            write_report(page, force, found.to_html(spell))
    render_detection.verdict(found, report, as_json)
    if not found.good:
        raise typer.Exit(1)


def doctor(as_json: Json = False) -> None:
    """Say what is installed, whether a detector can run with it, and the commands that fix it. Exit 4 if none can."""
    from ckptconv.cli import waiting

    with waiting.stage("importing torch, mmengine, mmcv and mmdet", as_json):
        from ckptconv.cli import render_detection
        from ckptconv.mmdetection.environment.doctor import examine

        found = examine()
    render_detection.diagnosis(found, as_json)
    if not found.can_detect:
        raise typer.Exit(4)
