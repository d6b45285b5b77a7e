"""Methods that compare views by their cluster assignments, or by bags of visual words."""

from __future__ import annotations

from ckptconv.methods.interface import IMAGENET, Layout, Method, Published
from ckptconv.rules import drop, keep, under

_OBOW_BLOCKS = (  # obow/feature_extractor.py
    keep("0.Conv.{p}", "conv1.{p}"),
    keep("0.bn.{p}", "bn1.{p}"),
    keep("1.{key...}", "layer1.{key...}"),
    keep("2.{key...}", "layer2.{key...}"),
    keep("3.{key...}", "layer3.{key...}"),
    keep("4.{key...}", "layer4.{key...}"),
)

SWAV = Method(
    name="swav",
    title="SwAV, DeepCluster-v2, SeLa-v2",
    aliases=("deepcluster", "deepcluster-v2", "sela", "sela-v2"),
    paper="https://arxiv.org/abs/2006.09882",
    repository="facebookresearch/swav",
    layouts=(
        Layout(  # releases are bare, training checkpoints wrapped; src/resnet50.py pads to torchvision's stem
            title="release or training checkpoint",
            sections=("state_dict", ""),
            rules=(
                drop("projection_head.{p...}", "the projection head"),
                drop("prototypes.{p...}", "the prototypes"),
                keep("{key...}", "{key...}"),
            ),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("swav"),
)

OBOW = Method(
    name="obow",
    title="OBoW",
    aliases=("online-bow",),
    paper="https://arxiv.org/abs/2012.11552",
    repository="valeoai/obow",
    layouts=(
        Layout(  # the student is the network that is used afterwards: obow/builder_obow.py
            title="training checkpoint",
            sections=("network",),
            rules=(
                *under("feature_extractor._feature_blocks.", _OBOW_BLOCKS),
                drop("feature_extractor_teacher.{key...}", "the teacher: a momentum copy"),
                drop("bow_predictor.{p...}", "the prediction head for visual words"),
                drop("bow_extractor.{p...}", "the vocabulary of visual words and its statistics"),
                drop("linear_classifier.{p...}", "the online classifier, for monitoring"),
                drop("_alpha", "the teacher's momentum"),
                drop("_iteration", "the step counter"),
            ),
            families=("ResNet",),
        ),
        Layout(
            title="student only",
            sections=("network",),
            rules=under("_feature_blocks.", _OBOW_BLOCKS),
            families=("ResNet",),
        ),
        Layout(
            title="student in torchvision's names",
            sections=("network",),
            rules=(drop("fc.{p}", "the classifier over visual words of the last level"), keep("{key...}", "{key...}")),
            families=("ResNet",),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("obow"),
)
