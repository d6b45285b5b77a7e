"""Rules that several methods share: a ResNet under names that are not torchvision's."""

from __future__ import annotations

from ckptconv.rules import Rule, keep

NUMBERED: tuple[Rule, ...] = (
    keep("0.{p}", "conv1.{p}"),
    keep("1.{p}", "bn1.{p}"),
    keep("4.{key...}", "layer1.{key...}"),
    keep("5.{key...}", "layer2.{key...}"),
    keep("6.{key...}", "layer3.{key...}"),
    keep("7.{key...}", "layer4.{key...}"),
)
"""nn.Sequential(*list(resnet.children())[:-1]) numbers the children as torchvision registers them: conv1, bn1, relu,
maxpool, layer1 to layer4, avgpool."""

DETECTRON2: tuple[Rule, ...] = (
    keep("stem.conv1.norm.{p}", "bn1.{p}"),
    keep("stem.conv1.{p}", "conv1.{p}"),
    *(
        rule
        for theirs, stage in (("res2", "layer1"), ("res3", "layer2"), ("res4", "layer3"), ("res5", "layer4"))
        for rule in (
            keep(f"{theirs}.{{block}}.conv{{n}}.norm.{{p}}", f"{stage}.{{block}}.bn{{n}}.{{p}}"),
            keep(f"{theirs}.{{block}}.conv{{n}}.{{p}}", f"{stage}.{{block}}.conv{{n}}.{{p}}"),
            keep(f"{theirs}.{{block}}.shortcut.norm.{{p}}", f"{stage}.{{block}}.downsample.1.{{p}}"),
            keep(f"{theirs}.{{block}}.shortcut.{{p}}", f"{stage}.{{block}}.downsample.0.{{p}}"),
        )
    ),
)
"""detectron2/modeling/backbone/resnet.py: a norm is a child of its convolution, stages are counted from the stem."""

TRANSFORMERS: tuple[Rule, ...] = (
    keep("embedder.embedder.convolution.{p}", "conv1.{p}"),
    keep("embedder.embedder.normalization.{p}", "bn1.{p}"),
    *(
        keep(
            f"encoder.stages.{s}.layers.{{block}}.layer.{c}.{theirs}.{{p}}",
            f"layer{s + 1}.{{block}}.{ours}{c + 1}.{{p}}",
        )
        for s in range(4)
        for c in range(3)
        for theirs, ours in (("convolution", "conv"), ("normalization", "bn"))
    ),
    *(
        keep(
            f"encoder.stages.{s}.layers.{{block}}.shortcut.{theirs}.{{p}}",
            f"layer{s + 1}.{{block}}.downsample.{c}.{{p}}",
        )
        for s in range(4)
        for theirs, c in (("convolution", 0), ("normalization", 1))
    ),
)
"""transformers/models/resnet/modeling_resnet.py: all indices start at 0."""
