"""SimCLR and SimCLRv2: trained by others, or ported from Google's TensorFlow checkpoints. Images are from 0 to 1."""

from __future__ import annotations

from ckptconv.methods.interface import UNIT, Layout, Method, Published
from ckptconv.rules import drop, keep, under

SIMCLR_STHALLES = Method(
    name="simclr-sthalles",
    title="SimCLR as sthalles/SimCLR trains it",
    aliases=("simclr",),
    paper="https://arxiv.org/abs/2002.05709",
    repository="sthalles/SimCLR",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("state_dict",),
            rules=(drop("backbone.fc.{p...}", "the projection head"), keep("backbone.{key...}", "{key...}")),
            families=("ResNet",),
        ),
    ),
    pixels=UNIT,  # data_aug/contrastive_learning_dataset.py ends with ToTensor
)

SIMCLR_SPIJKERVET = Method(
    name="simclr-spijkervet",
    title="SimCLR as Spijkervet/SimCLR trains it",
    aliases=("simclr",),
    paper=SIMCLR_STHALLES.paper,
    repository="Spijkervet/SimCLR",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("",),
            rules=(keep("encoder.{key...}", "{key...}"), drop("projector.{p...}", "the projection head")),
            families=("ResNet",),
        ),
    ),
    pixels=UNIT,  # simclr/modules/transformations/simclr.py ends with ToTensor
    releases=Published("simclr-spijkervet"),
)

SIMCLR_ATANOV = Method(
    name="simclr-atanov",
    title="SimCLR as AndrewAtanov/simclr-pytorch trains it",
    aliases=("simclr",),
    paper=SIMCLR_STHALLES.paper,
    repository="AndrewAtanov/simclr-pytorch",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("state_dict",),
            rules=(
                drop("convnet.fc.{p}", "a classifier that is never used"),
                keep("convnet.{key...}", "{key...}"),
                drop("projection.{p...}", "the projection head"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=UNIT,  # models/ssl.py: transforms end with ToTensor
)

SIMCLR_TONYLINS = Method(
    name="simclr-tonylins",
    title="SimCLR, Google's weights as tonylins/simclr-converter writes them",
    aliases=("simclr",),
    paper=SIMCLR_STHALLES.paper,
    repository="tonylins/simclr-converter",
    layouts=(
        Layout(
            title="converted network",
            sections=("state_dict",),
            rules=(drop("fc.{p}", "the classifier"), keep("{key...}", "{key...}")),
            families=("ResNet",),
        ),
    ),
    pixels=UNIT,  # README.md: without normalization, as the original models were trained
    guess=False,  # torchvision's files have the same names
)

_BLOCK = tuple(  # resnet.py: a stage is `Blocks`, a norm is in a Sequential with its ReLU
    rule
    for s in range(1, 5)
    for rule in (
        keep(f"{s}.blocks.{{b}}.projection.shortcut.weight", f"layer{s}.{{b}}.downsample.0.weight"),
        keep(f"{s}.blocks.{{b}}.projection.bn.0.{{p}}", f"layer{s}.{{b}}.downsample.1.{{p}}"),
        *(
            rule
            for n in range(3)
            for rule in (
                keep(f"{s}.blocks.{{b}}.net.{2 * n}.weight", f"layer{s}.{{b}}.conv{n + 1}.weight"),
                keep(f"{s}.blocks.{{b}}.net.{2 * n + 1}.0.{{p}}", f"layer{s}.{{b}}.bn{n + 1}.{{p}}"),
            )
        ),
    )
)

SIMCLRV2_SEPARIUS = Method(
    name="simclrv2-separius",
    title="SimCLRv2, Google's weights as Separius/SimCLRv2-Pytorch writes them, without selective kernels",
    aliases=("simclr", "simclr-v2"),
    paper="https://arxiv.org/abs/2006.10029",
    repository="Separius/SimCLRv2-Pytorch",
    layouts=(
        Layout(  # the projection head has its own section; with selective kernels the network is not torchvision's
            title="converted network",
            sections=("resnet",),
            rules=(
                keep("net.0.0.weight", "conv1.weight"),
                keep("net.0.1.0.{p}", "bn1.{p}"),
                *under("net.", _BLOCK),
                drop("fc.{p}", "the classifier"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=UNIT,  # verify.py: transforms end with ToTensor
)
