"""Layouts of frameworks and naming conventions: they tell how a file is laid out, not how it was trained."""

from __future__ import annotations

from ckptconv.methods import naming
from ckptconv.methods.interface import Layout, Method, Release
from ckptconv.methods.naming import NUMBERED
from ckptconv.rules import Rule, drop, keep, under

_FLAT = ("", "state_dict", "model")

TORCHVISION = Method(
    name="torchvision",
    title="torchvision's names",
    repository="pytorch/vision",
    layouts=(
        Layout(title="bare backbone", sections=_FLAT, rules=(keep("{key...}", "{key...}"),)),
        Layout(
            title="network with a classifier",
            sections=_FLAT,
            rules=(drop("fc.{p...}", "the classifier"), keep("{key...}", "{key...}")),
        ),
    ),
    pixels=None,
)

GENERIC = Method(
    name="generic",
    title="any prefix, taken off (--strip-prefix)",
    layouts=(
        Layout(
            title="backbone under a prefix",
            sections=("state_dict", "model", ""),
            rules=(drop("fc.{p...}", "the head after the pooled features"), keep("{key...}", "{key...}")),
        ),
    ),
    pixels=None,
    guess=False,
)

MMSELFSUP = Method(
    name="mmselfsup",
    title="MMSelfSup, MMPretrain and OpenSelfSup runs",
    repository="open-mmlab/mmselfsup",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("state_dict",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("neck.{key...}", "the neck: a projector"),
                drop("head.{key...}", "the pretext task's head"),
                drop("queue", "the negatives"),
                drop("queue_ptr", "the negatives"),
                drop("queue2", "the dense negatives"),
                drop("queue2_ptr", "the dense negatives"),
                drop("memory_bank.{key...}", "the memory bank of NPID and ODC"),
                drop("loss_weight", "the weights of ODC's and DeepCluster's clusters"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("encoder_q.{key...}", "the query encoder again, under its other name"),
                drop("target_net.{key...}", "the target network: a momentum copy"),
                drop("online_net.{key...}", "the online network again, under its other name"),
                drop("momentum_encoder.{key...}", "the momentum encoder: a copy"),
            ),
        ),
    ),
    pixels=None,
)

_LIGHTLY_REST = (
    drop("{twin}_backbone.{key...}", "another copy of the backbone (key, student, teacher or anchor)"),
    drop("backbone_momentum.{key...}", "the momentum copy of the backbone"),
    drop("projection_head.{key...}", "the projection head"),
    drop("projection_head_{twin}.{key...}", "a copy of the projection head"),
    drop("{twin}_projection_head.{key...}", "a copy of the projection head"),
    drop("prediction_head.{key...}", "the prediction head"),
    drop("prototypes.{key...}", "the prototypes"),
    drop("criterion.{key...}", "what the loss keeps between steps"),
    drop("online_classifier.{key...}", "the classifier that watches the training"),
)

_LIGHTLY_WORKER: tuple[
    Rule, ...
] = (  # lightly/models/resnet.py, up to version 1.2: a 3x3 stem, and `shortcut` for `downsample`
    drop("0.{p}", "the norm of the pixels"),
    keep("1.{p}", "conv1.{p}"),
    keep("2.{p}", "bn1.{p}"),
    *(
        rule
        for s in range(1, 5)
        for rule in (
            keep(f"{s + 2}.{{b}}.shortcut.{{p...}}", f"layer{s}.{{b}}.downsample.{{p...}}"),
            keep(f"{s + 2}.{{key...}}", f"layer{s}.{{key...}}"),
        )
    ),
    drop("7.{p}", "the convolution to the embedding"),
)

LIGHTLY = Method(
    name="lightly",
    title="lightly's benchmarks and examples",
    repository="lightly-ai/lightly",
    layouts=(
        Layout(
            title="benchmark: torchvision's ResNet as it is",
            sections=("state_dict",),
            rules=(keep("backbone.{key...}", "{key...}"), *_LIGHTLY_REST),
        ),
        Layout(
            title="example: nn.Sequential(*list(resnet.children())[:-1])",
            sections=("state_dict",),
            rules=(*under("backbone.", NUMBERED), *_LIGHTLY_REST),
        ),
        Layout(
            title="worker: lightly's own ResNet for small images",
            sections=("state_dict",),
            rules=(
                *under("model.backbone.", _LIGHTLY_WORKER),
                drop("model.projection_head.{p...}", "the projection head"),
            ),
        ),
    ),
    pixels=None,
)

SOLO_LEARN = Method(
    name="solo-learn",
    title="solo-learn's runs",
    repository="vturrisi/solo-learn",
    layouts=(
        Layout(  # a method's own modules lie beside the backbone, whose fc is nn.Identity: solo/methods/
            title="Lightning checkpoint",
            sections=("state_dict",),
            rules=(
                keep("backbone.{key...}", "{key...}"),
                drop("momentum_backbone.{key...}", "the momentum backbone: a copy"),
                drop("classifier.{p}", "the classifier that watches the training"),
                drop("momentum_classifier.{p}", "the classifier that watches the momentum backbone"),
                drop("projector.{p...}", "the projector"),
                drop("momentum_projector.{p...}", "the momentum projector: a copy"),
                drop("predictor.{p...}", "the predictor"),
                drop("predictor2.{p...}", "All4One's second predictor"),
                drop("transformer_encoder.{p...}", "All4One's transformer over neighbours"),
                drop("pos_enc.{p...}", "the positions of All4One's transformer"),
                drop("head.{p...}", "DINO's head"),
                drop("momentum_head.{p...}", "DINO's momentum head: a copy"),
                drop("dino_loss_func.center", "the centre of the teacher's outputs"),
                drop("prototypes.{p...}", "the prototypes of SwAV and DeepCluster-v2"),
                drop("local_memory_{what}", "the memory bank of DeepCluster-v2"),
                drop("queue", "the queue of earlier features"),
                drop("queue_{what}", "the queue's pointer, labels or indices"),
            ),
        ),
    ),
    pixels=None,
)

_S3 = "https://pl-bolts-weights.s3.us-east-2.amazonaws.com/"

BOLTS = Method(
    name="bolts",
    title="Lightning Bolts' SimCLR, BYOL, SimSiam, MoCo and SwAV",
    repository="Lightning-Universe/lightning-bolts",
    layouts=(
        Layout(
            title="SimCLR",
            sections=("state_dict",),
            rules=(
                drop("encoder.fc.{p}", "a classifier that is never trained"),
                keep("encoder.{key...}", "{key...}"),
                drop("projection.{p...}", "the projection head"),
                drop("non_linear_evaluator.{p...}", "the classifier that watches the training"),
            ),
        ),
        Layout(
            title="BYOL or SimSiam",
            sections=("state_dict",),
            rules=(
                keep("online_network.encoder.{key...}", "{key...}"),
                drop("online_network.projector.{p...}", "the projector"),
                drop("target_network.{key...}", "the target network: a copy"),
                drop("predictor.{p...}", "the predictor"),
            ),
        ),
        Layout(
            title="MoCo",
            sections=("state_dict",),
            rules=(
                drop("encoder_q.fc.{p...}", "the query encoder's projection head"),
                keep("encoder_q.{key...}", "{key...}"),
                drop("encoder_k.{key...}", "the key encoder: a momentum copy"),
                drop("head_q.{p...}", "the query's projection head"),
                drop("head_k.{p...}", "the key's projection head"),
                drop("queue.{p}", "the negatives"),
                drop("queue", "the negatives, as version 0.5 and older keep them"),
                drop("queue_ptr", "the negatives, as version 0.5 and older keep them"),
                drop("val_queue.{p}", "the negatives of validation"),
                drop("val_queue", "the negatives of validation, as version 0.5 and older keep them"),
                drop("val_queue_ptr", "the negatives of validation, as version 0.5 and older keep them"),
            ),
        ),
        Layout(
            title="SwAV",
            sections=("state_dict",),
            rules=(
                drop("model.projection_head.{p...}", "the projection head"),
                drop("model.prototypes.{p...}", "the prototypes"),
                keep("model.{key...}", "{key...}"),
            ),
        ),
    ),
    pixels=None,
    releases=(
        Release("bolts_simclr_imagenet", f"{_S3}simclr/bolts_simclr_imagenet/simclr_imagenet.ckpt"),
        Release("bolts_swav_imagenet", f"{_S3}swav/bolts_swav_imagenet/swav_imagenet.ckpt"),
    ),
)

TRANSFORMERS = Method(
    name="transformers",
    title="Hugging Face transformers' names",
    repository="huggingface/transformers",
    layouts=(
        Layout(title="backbone", sections=("", "state_dict"), rules=naming.TRANSFORMERS),
        Layout(
            title="network with a classifier",
            sections=("", "state_dict"),
            rules=(*under("resnet.", naming.TRANSFORMERS), drop("classifier.1.{p}", "the classifier")),
        ),
    ),
    pixels=None,
)

DETECTRON2 = Method(
    name="detectron2",
    title="detectron2's names, as its converters write them",
    repository="facebookresearch/detectron2",
    layouts=(
        Layout(  # a converter puts `stem.` before whatever is in no stage, the head too
            title="converted backbone",
            sections=("model",),
            rules=(
                *naming.DETECTRON2,
                drop("stem.fc.{p...}", "the head after the pooled features"),
                drop("backbone.fpn_{layer}.{p...}", "a feature pyramid"),
                drop("fpn_{layer}.{p...}", "a feature pyramid"),
                drop("box_head.{p...}", "the head over regions"),
            ),
        ),
    ),
    pixels=None,
)

METHODS = (TORCHVISION, GENERIC, MMSELFSUP, LIGHTLY, SOLO_LEARN, BOLTS, TRANSFORMERS, DETECTRON2)
