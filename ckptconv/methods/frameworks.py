"""Layouts of frameworks and naming conventions: they tell how a file is laid out, not how it was trained."""

from __future__ import annotations

from ckptconv.methods.interface import Layout, Method, Release
from ckptconv.rules import drop, keep, under

_FLAT = ("", "state_dict", "model")
_VISSL = "https://dl.fbaipublicfiles.com/vissl/model_zoo/"

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

VISSL = Method(
    name="vissl",
    title="VISSL's model zoo and runs",
    repository="facebookresearch/vissl",
    layouts=(
        Layout(
            title="training checkpoint",
            sections=("classy_state_dict.base_model.model.trunk", "model_state_dict", ""),
            rules=(
                keep("_feature_blocks.{key...}", "{key...}"),
                keep("base_model._feature_blocks.{key...}", "{key...}"),
                drop("heads.{key...}", "the pretext task's heads"),
            ),
        ),
    ),
    releases=tuple(
        Release(name, f"{_VISSL}{path}")
        for name, path in (
            (
                "vissl_simclr_rn50_800ep",
                "simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1/model_final_checkpoint_phase799.torch",
            ),
            (
                "vissl_swav_rn50_800ep",
                "swav_in1k_rn50_800ep_swav_8node_resnet_27_07_20.a0a6b676/model_final_checkpoint_phase799.torch",
            ),
            (
                "vissl_moco_v2_rn50_200ep",
                "moco_v2_1node_lr.03_step_b32_zero_init/model_final_checkpoint_phase199.torch",
            ),
        )
    ),
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
            # Children are numbered as torchvision registers them: conv1, bn1, relu, maxpool, layer1 to layer4, avgpool.
            rules=(
                *under(
                    "backbone.",
                    (
                        keep("0.{p}", "conv1.{p}"),
                        keep("1.{p}", "bn1.{p}"),
                        keep("4.{key...}", "layer1.{key...}"),
                        keep("5.{key...}", "layer2.{key...}"),
                        keep("6.{key...}", "layer3.{key...}"),
                        keep("7.{key...}", "layer4.{key...}"),
                    ),
                ),
                *_LIGHTLY_REST,
            ),
        ),
    ),
    pixels=None,
)

METHODS = (TORCHVISION, GENERIC, MMSELFSUP, VISSL, LIGHTLY)
