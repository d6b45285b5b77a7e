"""The commands. Options are read here, work is done in the library, and `render` prints.

Each command imports what it needs itself, so that `--help` does not wait for the library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptconv._version import __version__
from ckptconv.backbones import TARGETS
from ckptconv.errors import UsageError

app = typer.Typer(
    name="ckptconv",
    help="Self-supervised checkpoints for MMDetection, with every tensor accounted for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cache_app = typer.Typer(help="The files that were fetched whole.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="The checkpoint: a path, https://, hf://, s3:// or gs://, or a name of `ckptconv releases`.",
        show_default=False,
    ),
]
Whole = Annotated[
    bool, typer.Option("--whole", help="Fetch all of SRC, into the cache, and check its published digest.")
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Where whole files are kept. Default: CKPTCONV_CACHE_DIR, or this platform's usual place.",
    ),
]
Selfsup = Annotated[
    str, typer.Option("--selfsup", "-m", metavar="auto|NAME", help="The method; see `ckptconv methods`.")
]
Prefix = Annotated[
    str, typer.Option("--strip-prefix", metavar="PREFIX", help="Take the tensors under this prefix only.")
]
Section = Annotated[
    str | None, typer.Option("--section", metavar="PATH", help="Where the weights lie, such as 'state_dict'.")
]
Drop = Annotated[
    list[str] | None, typer.Option("--drop", metavar="PATTERN", help="Accept the loss of these tensors. Repeatable.")
]
Rules = Annotated[Path | None, typer.Option("--rules", metavar="FILE.toml", help="A method of your own.")]
Target = Annotated[
    str | None,
    typer.Option("--target", metavar="NAME", help=f"Whose names to write: {', '.join(TARGETS)}.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ckptconv {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    src: Source,
    dst: Annotated[Path, typer.Argument(metavar="DST", help="The file to write.", show_default=False)],
    selfsup: Selfsup = "auto",
    strip_prefix: Prefix = "",
    section: Section = None,
    drop: Drop = None,
    rules: Rules = None,
    target: Target = None,
    format: Annotated[
        str | None, typer.Option("--format", metavar="torch|safetensors", help="Default: by the suffix of DST.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", metavar="TYPE", help="Round floating tensors to float16, bfloat16, float32 or float64."
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="PIXELS", help="Resize a ViT's positions for square images of this side."),
    ] = None,
    patch_size: Annotated[
        int | None,
        typer.Option("--patch-size", metavar="PIXELS", help="Resize a ViT's patches, and their kernel, to this side."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace DST if it exists.")] = False,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Write the backbone of SRC to DST as MMDetection loads it, or say which tensor stands in the way."""
    from ckptconv import pipeline
    from ckptconv.cli import render, render_sources

    with render_sources.fetching(whole, cache_dir) as fetching, render.progress() as progress:
        receipt = pipeline.convert(
            src,
            dst,
            selfsup,
            drop=drop or (),
            strip_prefix=strip_prefix,
            section=section,
            rules=rules,
            for_target=target,
            format=format,
            dtype=dtype,
            image_size=image_size,
            patch_size=patch_size,
            dry_run=dry_run,
            force=force,
            progress=progress,
            fetching=fetching,
        )
    render.receipt(receipt, as_json)


@app.command()
def inspect(
    src: Source,
    rules: Rules = None,
    full: Annotated[bool, typer.Option("--all", help="Every tensor on its own line, nothing folded.")] = False,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Show what SRC holds, and which methods explain it. Nothing in it is executed."""
    from ckptconv import questions
    from ckptconv.cli import render, render_sources

    with render_sources.fetching(whole, cache_dir) as fetching:
        found = questions.inspect(src, rules=rules, fetching=fetching)
    render.inspection(found, full, as_json)


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show this one in full.", show_default=False)
    ] = None,
    fits: Annotated[
        str | None,
        typer.Option("--fits", metavar="SRC", help="Those whose rules explain SRC. Exit 1 if none does."),
    ] = None,
    rules: Rules = None,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """List the methods: built in, from other packages (entry points `ckptconv.methods`), and from --rules.

    A rule file holds a name and rules: name = "mine", rules = [{keep = "encoder.{key...}", to = "{key...}"},
    {drop = "head.{key...}", why = "the head"}]. {x} is one segment of a dotted name, {x...} one or more.
    """
    from ckptconv import questions
    from ckptconv.cli import render_methods, render_sources

    if fits is not None:
        if name is not None:
            raise UsageError(
                "a method's NAME and --fits are two questions",
                f"Whether {name} fits: ckptconv convert --dry-run --selfsup {name} SRC DST",
            )
        with render_sources.fetching(whole, cache_dir) as fetching:
            found = questions.fitting(fits, rules=rules, fetching=fetching)
        render_methods.fitting(found, as_json)
        return
    if name is None:
        render_methods.methods(questions.known_methods(rules), as_json)
        return
    from ckptconv.mmdetection.verify.recipes import RECIPES

    render_methods.method(questions.known_method(name, rules), RECIPES.values(), as_json)


@app.command()
def explain(
    src: Source,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A name in the file.", show_default=False)],
    selfsup: Selfsup = "auto",
    strip_prefix: Prefix = "",
    section: Section = None,
    drop: Drop = None,
    rules: Rules = None,
    target: Target = None,
    whole: Whole = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Say which rule takes KEY and where it goes, or why it is left out."""
    from ckptconv import questions
    from ckptconv.cli import render, render_sources

    with render_sources.fetching(whole, cache_dir) as fetching:
        found = questions.explain(
            src,
            key,
            selfsup,
            drop=drop or (),
            strip_prefix=strip_prefix,
            section=section,
            rules=rules,
            target=target,
            fetching=fetching,
        )
    render.explanation(found, as_json)


@app.command()
def releases(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="A part of a name, method or network; *, ? and [ ] fit as usual.")
    ] = "",
    rules: Rules = None,
    as_json: Json = False,
) -> None:
    """List the files that methods' authors published: sources by their names. --json shows their addresses, too."""
    from ckptconv import questions
    from ckptconv.cli import render_sources

    render_sources.releases(questions.known_releases(pattern, rules), as_json)


@cache_app.command("list")
def cache_list(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """List the files in the cache, and how much of each is there."""
    from ckptconv.cli import render_sources
    from ckptconv.sources.cache import Cache

    cache = Cache(cache_dir)
    render_sources.cache(str(cache.folder), cache.entries(), as_json)


@cache_app.command("clear")
def cache_clear(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Remove every file from the cache."""
    from ckptconv.cli import render_sources
    from ckptconv.sources.cache import Cache

    cache = Cache(cache_dir)
    render_sources.cleared(str(cache.folder), *cache.clear(), as_json)


@app.command("emit-config")
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
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", "-s", metavar="NAME", help="1x (the default), 2x, ms-1x, ms-2x or mmselfsup."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="CONFIG", help="Any MMDetection config instead: a path or mmdet::FOLDER/FILE."),
    ] = None,
    style: Annotated[
        str, typer.Option("--style", metavar="inherit|flat", help="On MMDetection's bases, or one file without any.")
    ] = "inherit",
    frozen_stages: Annotated[
        int | None, typer.Option("--frozen-stages", metavar="N", help="-1 none, 0 the stem, 1 also layer1, …")
    ] = None,
    norm: Annotated[
        str, typer.Option("--norm", metavar="SyncBN|BN|frozen", help="Batch norm of the backbone.")
    ] = "SyncBN",
    num_classes: Annotated[int | None, typer.Option("--num-classes", metavar="N", help="Default: COCO's 80.")] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="A,B,C|FILE", help="Class names, or a file with one on each line."),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option("--data-root", metavar="DIR", help="A data set laid out as COCO is.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", help="Images a GPU; the learning rate follows.")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", metavar="N", help="GPUs; the learning rate follows.")] = None,
    amp: Annotated[bool, typer.Option("--amp", help="Train with automatic mixed precision.")] = False,
    no_guard: Annotated[bool, typer.Option("--no-guard", help="Leave out the hook that proves the start.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace FILE if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write the MMDetection config that trains a detector on CKPT."""
    from ckptconv.cli import render_detection
    from ckptconv.mmdetection import config
    from ckptconv.mmdetection.choices import choose

    choices = choose(
        detector=detector,
        schedule=schedule,
        base=base,
        style=style,
        frozen_stages=frozen_stages,
        norm=norm,
        num_classes=num_classes,
        classes=classes,
        data_root=data_root,
        batch_size=batch_size,
        gpus=gpus,
        amp=amp,
        guard=not no_guard,
    )
    if out is None:
        render_detection.config_text(config.emit(ckpt, choices), as_json)
    else:
        render_detection.config_written(config.write(ckpt, out, choices, force), out, as_json)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A detector's config.", show_default=False)],
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Build CONFIG's detector, initialise it, and compare it with its checkpoint, tensor by tensor.

    A checkpoint behind https:// is fetched into the cache.
    """
    from ckptconv.cli import render_detection, render_sources
    from ckptconv.mmdetection.check import check

    with render_sources.fetching(whole=True, cache_dir=cache_dir) as fetching:
        found = check(config, fetching)
    render_detection.verdict(found, as_json)
    if not found.good:
        raise typer.Exit(1)


@app.command("verify-ap")
def verify_ap(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A recipe of `ckptconv recipes`, or any MMDetection config.", show_default=False
        ),
    ],
    tier: Annotated[
        str, typer.Option("--tier", "-t", metavar="load|smoke|lift|eval|full", help="How much is to be shown.")
    ] = "smoke",
    pretrained: Annotated[
        str | None, typer.Option("--pretrained", "-p", metavar="CKPT", help="A checkpoint that `convert` wrote.")
    ] = None,
    data_root: Annotated[
        str | None, typer.Option("--data-root", metavar="DIR", help="Where COCO is. Default: as the config says.")
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", help="lift: with N images of each part of --data-root.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="DETECTOR.pth", help="eval: the trained detector.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", metavar="N", help="GPUs a node; 0 is the CPU. Default: all; one for drawn images."),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="Machines.")] = 1,
    launcher: Annotated[
        str | None,
        typer.Option(
            "--launcher", metavar="none|pytorch|slurm", help="With --gpus 0, pytorch and slurm start two processes."
        ),
    ] = None,
    work_dir: Annotated[
        str | None, typer.Option("--work-dir", metavar="DIR", help="Default: work_dirs/TARGET-TIER.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="How many trainings. Default: 1, for lift 3.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The first one's seed.")] = 0,
    amp: Annotated[bool, typer.Option("--amp", help="Train with automatic mixed precision.")] = False,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="box=38.0,mask=34.3", help="The AP, in percent, that must come out."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", metavar="POINTS", help="How far off it may be.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show recipe and launch command, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train or test what TARGET describes, measure its AP, and judge it. The same command goes on after a stop.

    load proves that the detector starts from its checkpoint; smoke trains a small detector on generated images; lift
    compares the checkpoint with random weights; eval tests a trained detector; full is the published recipe.
    """
    from ckptconv.cli import render, render_verification
    from ckptconv.mmdetection.verify import pipeline
    from ckptconv.mmdetection.verify.request import Request, expectations
    from ckptconv.mmdetection.verify.verdict import GOOD

    request = Request(
        target,
        tier,
        pretrained=pretrained,
        data_root=data_root,
        images=images,
        detector=checkpoint,
        gpus=gpus,
        nodes=nodes,
        launcher=launcher,
        work_dir=work_dir,
        seeds=seeds,
        seed=seed,
        amp=amp,
        expected=expectations(expect) if expect is not None else None,
        tolerance=tolerance,
    )
    if dry_run:
        render_verification.planned(pipeline.planned(request), as_json)
        return
    try:
        with render_verification.progress() as (watch, stage):
            found, folder = pipeline.verify(request, watch, stage)
    except KeyboardInterrupt:
        render.note("stopped; the same command goes on from the last checkpoint")
        raise typer.Exit(130) from None
    render_verification.verdict(found, str(folder), as_json)
    if found["verdict"]["status"] not in GOOD:
        raise typer.Exit(1)


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the published results that verify-ap knows, as box AP / mask AP on COCO val2017."""
    from ckptconv.cli import render_verification
    from ckptconv.mmdetection.verify.recipes import RECIPES

    render_verification.recipes(RECIPES.values(), as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, whether a detector can run with it, and the commands that mend it. Exit 4 if none can."""
    from ckptconv.cli import render_detection
    from ckptconv.mmdetection.doctor import examine

    found = examine()
    render_detection.diagnosis(found, as_json)
    if not found.can_detect:
        raise typer.Exit(4)
