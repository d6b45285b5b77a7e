"""Methods that DeepMind trained with haiku: ResNets with names, axes and padding that differ from torch's.

Sources: dm-haiku's `haiku/_src/nets/resnet.py` (names of blocks), `conv.py` (a kernel is height, width, in, out),
`batch_norm.py` (scale and offset are 1x1x1xC) and `moving_averages.py` (``average`` is the one in use). The padding is
'SAME': where the stride is 2 and the size is even, it is one row and column larger at the end than at the start. An
ordinary ResNet pads both sides equally: its features are those of an image shifted by one pixel, not the same numbers.
"""

from __future__ import annotations

from ckptconv.methods.interface import IMAGENET, Layout, Method, Published
from ckptconv.ops import permute, reshape
from ckptconv.rules import Rule, drop, keep, under

_MODULES = (
    ("initial_conv", "conv1", "initial_batchnorm", "bn1"),
    *(
        (f"{block}.conv_{n}", f"{ours}.conv{n + 1}", f"{block}.batchnorm_{n}", f"{ours}.bn{n + 1}")
        for block, ours in ((f"block_group_{s}.~.block_{{b}}.~", f"layer{s + 1}.{{b}}") for s in range(4))
        for n in range(3)
    ),
    *(
        (f"{block}.shortcut_conv", f"{ours}.downsample.0", f"{block}.shortcut_batchnorm", f"{ours}.downsample.1")
        for block, ours in ((f"block_group_{s}.~.block_{{b}}.~", f"layer{s + 1}.{{b}}") for s in range(4))
    ),
)

_PARAMS: tuple[Rule, ...] = tuple(
    rule
    for conv, our_conv, norm, our_norm in _MODULES
    for rule in (
        keep(f"{{net...}}.{conv}.w", f"{our_conv}.weight", permute(3, 2, 0, 1)),
        keep(f"{{net...}}.{norm}.scale", f"{our_norm}.weight", reshape(-1)),
        keep(f"{{net...}}.{norm}.offset", f"{our_norm}.bias", reshape(-1)),
    )
)

_STATE: tuple[Rule, ...] = (
    *(
        rule
        for _, _, norm, our_norm in _MODULES
        for rule in (
            keep(f"{{net...}}.{norm}.~.mean_ema.average", f"{our_norm}.running_mean", reshape(-1)),
            keep(f"{{net...}}.{norm}.~.var_ema.average", f"{our_norm}.running_var", reshape(-1)),
        )
    ),
    drop("{net...}.hidden", "a moving average before bias correction"),
    drop("{net...}.counter", "the step counter of a moving average"),
)


BYOL = Method(
    name="byol",
    title="DeepMind's BYOL: trained with SAME padding, which MMDetection does not have",
    aliases=("bootstrap-your-own-latent",),
    paper="https://arxiv.org/abs/2006.07733",
    repository="google-deepmind/deepmind-research",
    layouts=(
        Layout(  # byol/byol_experiment.py evaluates the online network
            title="training checkpoint",
            sections=("experiment_state...",),
            rules=(
                drop("online_params.projector.{p...}", "the projection head"),
                drop("online_params.predictor.{p...}", "the prediction head"),
                drop("online_params.classifier.{p}", "the online classifier, for monitoring"),
                drop("online_state.projector.{p...}", "the projection head"),
                drop("online_state.predictor.{p...}", "the prediction head"),
                *under("online_params.", _PARAMS),
                *under("online_state.", _STATE),
                drop("target_params.{key...}", "the target network: a momentum copy"),
                drop("target_state.{key...}", "the target network: a momentum copy"),
                drop("opt_state.{key...}", "the optimizer"),
            ),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("byol"),
)

DETCON = Method(
    name="detcon",
    title="DetCon: trained with SAME padding, which MMDetection does not have",
    paper="https://arxiv.org/abs/2103.10957",
    repository="google-deepmind/detcon",
    layouts=(
        Layout(  # utils/networks.py names the modules; no public code says where in the file the two trees are
            title="parameters and state of one network, anywhere in the file",
            sections=("...",),
            rules=(*_PARAMS, *_STATE),
        ),
    ),
    pixels=IMAGENET,
    releases=Published("detcon"),
)
