"""More configs that look wrong and start rightly, or the other way round; here a real training tells what is true.

mmengine's Runner trains until its first `train_step`, or until the backbone's first convolution gets its input, with
the config's own Runner, loop, hooks, data set and pipeline.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, runner
from safetensors.torch import save_file

import ckptconv
from ckptconv.errors import ProofError
from ckptconv.formats import open_checkpoint
from ckptconv.mmdetection.check.guard_record import fingerprint_in
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.check.verdict import CheckReport
from tests.mmdetection.check.test_fooled import (
    HEAD,
    IMAGENET,
    MEAN,
    REST,
    SMALL,
    START,
    STD,
    named_by_its_folder,
    small,
)
from tests.support import raw_files

pytestmark = pytest.mark.mmdet


def fingerprint_of(path: str) -> str:
    """The fingerprint of the tensors at the top level of a file."""
    with open_checkpoint(Path(path)) as checkpoint:
        return fingerprint_in(checkpoint, "")


PLAIN, BARE = f"type='ResNet', {SMALL}, {START}", f"type='ResNet', {SMALL}"
TRAINING = """
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                        dataset={dataset})
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
work_dir = 'runs'
"""
IMPORTS = """
import io, pathlib
import numpy as np
from mmcv.cnn import ConvModule
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets import BaseDetDataset
from mmdet.models import RetinaNet
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.registry import DATASETS, LOOPS, RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from safetensors import safe_open
from safetensors.torch import load_file
from torch import load
@DATASETS.register_module(force=True)
class One(BaseDetDataset):
    METAINFO = dict(classes=('a',))
    def load_data_list(self):
        found = dict(img_path=self.data_prefix['img'], img_id=0, height=64, width=64)
        return [dict(found, instances=[dict(bbox=[4, 4, 40, 40], bbox_label=0, ignore_flag=0)])]
    def filter_data(self):
        return self.data_list
@TRANSFORMS.register_module(force=True)
class Swaps(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'][..., ::-1].copy()
        return results
"""


def dataset(*steps: str, reads: str = "dict(type='LoadImageFromFile')", image: str = "image.png") -> str:
    packs = "dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape'))"
    pipeline = ", ".join((reads, "dict(type='LoadAnnotations', with_bbox=True)", *steps, packs))
    return f"dict(type='One', data_prefix=dict(img={image!r}), pipeline=[{pipeline}])"


SWAPPED = dataset("dict(type='Swaps')")


@dataclass(frozen=True)
class Case:
    """As `test_fooled.Case`; ``file`` is what the backbone of the ``detector`` has to hold."""

    backbone: str
    right: bool
    code: str = ""
    more: str = ""
    said: str = ""
    proved: bool = True
    detector: str = "RetinaNet"
    file: str = "r.pth"


def own(name: str, line: str) -> Case:
    """A ResNet that reads its weights by a line of its own."""
    code = f"""
@register
class {name}(ResNet):
    def __init__(self, path=''):
        super().__init__(**SMALL)
        self.path = path
    def init_weights(self):
        {line}
"""
    return Case(f"type={name!r}" + (", path='r.safetensors'" if "path)" in line or "path," in line else ""), True, code)


HOOK = """
@HOOKS.register_module(force=True)
class {name}({base}):
    {more}
    def {method}:
        {line}
"""

CASES = {
    # right, though it looks wrong
    "a file that is opened first": own(
        "Opens", "with open('r.pth', 'rb') as f: self.load_state_dict(torch.load(f, weights_only=True))"
    ),
    "bytes in memory": own(
        "Bytes",
        "self.load_state_dict(torch.load(io.BytesIO(pathlib.Path('r.pth').read_bytes()), weights_only=True))",
    ),
    "torch.load under a name of its own": own("Bound", "self.load_state_dict(load('r.pth', weights_only=True))"),
    "safetensors under a name of its own": own("Safe", "self.load_state_dict(load_file(self.path))"),
    "safetensors tensor by tensor": own(
        "SafeOpen",
        "with safe_open(self.path, 'pt') as f: self.load_state_dict({k: f.get_tensor(k) for k in f.keys()})",
    ),
    "each child by an override": Case(
        f"{BARE}, init_cfg=dict(type='Constant', layer='Linear', val=1, override=[dict(type='Pretrained', name=n, "
        "checkpoint='r.pth', prefix=n) for n in ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')])",
        True,
    ),
    "half precision": Case(
        f"type='Halved', {SMALL}, {START}",
        True,
        """
@register
class Halved(ResNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bfloat16()
""",
    ),
    "a Sequential": Case(
        "type='Sequence'",
        True,
        """
@register
class Sequence(torch.nn.Sequential):
    def __init__(self):
        net = ResNet(**SMALL)
        net.load_state_dict(stored('r.pth'))
        super().__init__()
        for name, child in net.named_children():
            self.add_module(name, child)
""",
    ),
    "a logger of its own": Case(
        PLAIN,
        True,
        HOOK.format(name="Logs", base="LoggerHook", more="", method="after_val_epoch(self, *args)", line="pass"),
        "default_hooks = dict(logger=dict(type='Logs', interval=1))\n",
    ),
    "a hook that looks at what is loaded": Case(
        BARE,
        True,
        HOOK.format(
            name="Tells",
            base="Hook",
            more="",
            method="after_load_checkpoint(self, runner, checkpoint)",
            line="runner.logger.info(str(len(checkpoint)))",
        ),
        "load_from = 'detector.pth'\ncustom_hooks = [dict(type='Tells', priority='LOW')]\n",
    ),
    "a layer that is called after the backbone": Case(
        PLAIN,
        True,
        """
@register
class Projects(RetinaNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.backbone_proj, self.backbone_out = torch.nn.Conv2d(8, 8, 1), ConvModule(8, 8, 1)
""",
        detector="Projects",
    ),
    "an adapter in an unknown network": Case(
        "type='Tiny', init_cfg=dict(type='Pretrained', checkpoint='tiny.pth')",
        True,
        """
@register
class Tiny(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.blocks = torch.nn.ModuleList([torch.nn.Conv2d(8, 8, 3) for _ in range(6)])
        self.blocks[3].adapter = torch.nn.Linear(8, 8)
""",
        file="tiny.pth",
    ),
    "what one hook breaks the next one repairs": Case(
        PLAIN,
        True,
        HOOK.format(
            name="Breaks",
            base="Hook",
            more="priority = 'VERY_HIGH'",
            method="before_train(self, runner)",
            line="runner.model.backbone.conv1.weight.data.mul_(0)",
        )
        + HOOK.format(
            name="Mends",
            base="Hook",
            more="priority = 'LOW'",
            method="before_train(self, runner)",
            line="runner.model.backbone.load_state_dict(stored('r.pth'))",
        ),
        "custom_hooks = [dict(type='Mends'), dict(type='Breaks')]\n",
    ),
    # wrong, though it looks right
    "and the other way round": Case(
        PLAIN,
        False,
        HOOK.format(
            name="Last",
            base="Hook",
            more="",
            method="before_train(self, runner)",
            line="runner.model.backbone.conv1.weight.data.mul_(0)",
        )
        + HOOK.format(
            name="First",
            base="Hook",
            more="",
            method="before_train(self, runner)",
            line="runner.model.backbone.load_state_dict(stored('r.pth'))",
        ),
        "custom_hooks = [dict(type='Last', priority='LOW'), dict(type='First', priority='VERY_HIGH')]\n",
        "overwritten by the hook Last: 1 of 120 tensors differ",
    ),
    "a Runner that resets": Case(
        PLAIN,
        False,
        """
@RUNNERS.register_module(force=True)
class ResettingRunner(Runner):
    def load_or_resume(self):
        super().load_or_resume()
        torch.nn.init.normal_(self.model.backbone.conv1.weight)
""",
        "runner_type = 'ResettingRunner'\n",
        "not proved: the Runner ResettingRunner has its own load_or_resume",
        proved=False,
    ),
    "a loop that resets": Case(
        PLAIN,
        False,
        """
@LOOPS.register_module(force=True)
class ResettingLoop(EpochBasedTrainLoop):
    def run_iter(self, idx, data_batch):
        torch.nn.init.normal_(self.runner.model.backbone.conv1.weight)
        super().run_iter(idx, data_batch)
""",
        "train_cfg = dict(type='ResettingLoop', max_epochs=1)\n",
        "not proved: the loop ResettingLoop has its own run_iter",
        proved=False,
    ),
    "a Runner that an import patches": Case(
        PLAIN,
        False,
        """
own = Runner.load_or_resume
def resets(self):
    own(self)
    torch.nn.init.normal_(self.model.backbone.conv1.weight)
Runner.load_or_resume = resets
""",
        said="not proved: the Runner Runner has its own load_or_resume",
        proved=False,
    ),
    "train() that resets": Case(
        f"type='Trains', {SMALL}, {START}",
        False,
        """
@register
class Trains(ResNet):
    def train(self, mode=True):
        super().train(mode)
        if getattr(self, '_is_init', False):
            torch.nn.init.normal_(self.conv1.weight)
""",
        said="loaded, then overwritten by train() of Trains, which a training calls before its first iteration",
    ),
    "a guard for another file": Case(
        PLAIN,
        False,
        "from ckptconv.mmdetection import guard\n",
        "custom_hooks = [dict(type='CheckpointGuard', fingerprint='0' * 64)]\n",
        "the guard will stop the training: it expects the fingerprint 0000000000000000, and r.pth has ",
    ),
    "a guard for another module": Case(
        PLAIN,
        False,
        "from ckptconv.mmdetection import guard\n",
        "custom_hooks = [dict(type='CheckpointGuard', fingerprint='MARK', modules=('neck',))]\n",
        "the guard will stop the training: no init_cfg of neck names a checkpoint",
    ),
    "one stage by an override": Case(
        f"{BARE}, init_cfg=dict(type='Kaiming', layer='Conv2d', "
        "override=dict(type='Pretrained', name='layer1', checkpoint='r.pth', prefix='layer1'))",
        False,
        said="80 of 120 tensors differ from r.pth",
    ),
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Runner, "load_or_resume", Runner.load_or_resume)  # a case patches it
    cv2.imwrite("image.png", np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("name", CASES)
def test_check_says_what_a_training_does(name: str) -> None:
    case, module, state = CASES[name], f"fooled_training_{list(CASES).index(name)}", small()
    torch.save(state, "r.pth")
    save_file(state, "r.safetensors")
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, "detector.pth")
    tiny = torch.nn.ModuleList([torch.nn.Conv2d(8, 8, 3) for _ in range(6)]).state_dict()
    torch.save({f"blocks.{k}": v for k, v in tiny.items()}, "tiny.pth")
    Path(f"{module}.py").write_text(HEAD + IMPORTS + case.code)
    Path("detector.py").write_text(
        f"default_scope = 'mmdet'\ncustom_imports = dict(imports=['{module}'])\n"
        f"model = dict(type='{case.detector}', backbone=dict({case.backbone}), {REST})\n"
        + TRAINING.format(dataset=dataset())
        + case.more.replace("MARK", fingerprint_of("r.pth"))
    )
    _agrees(check(Path("detector.py")), case.right, case.proved, case.said)
    assert _starts(case.file) is case.right


def _agrees(found: CheckReport, right: bool, proved: bool, said: str) -> None:
    texts = [finding.text for finding in found.findings]
    assert found.good is right, texts
    assert found.proved is proved, texts
    assert right or any(said in text for text in texts), texts


class _Reached(BaseException):
    """Thrown at the place of a training that a test asks about."""


def _runner() -> Any:
    cfg = named_by_its_folder(Config.fromfile("detector.py"))
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)


def _starts(file: str) -> bool:
    """Whether the real training's detector holds the file when its first iteration begins."""
    held: dict[str, torch.Tensor] = {}

    def step(*_: Any, **__: Any) -> None:
        held.update({name: value.clone() for name, value in real.model.backbone.state_dict().items()})
        raise _Reached

    with warnings.catch_warnings(), mock.patch.object(runner, "collect_env", dict):
        warnings.simplefilter("ignore")
        real = _runner()
        real.model.train_step = step
        try:
            real.train()
        except _Reached:
            pass
        except ProofError:
            return False
    wanted = torch.load(file, weights_only=True)
    return all(torch.equal(held[n], v.to(held[n].dtype)) for n, v in wanted.items() if not n.endswith("tracked"))


def test_the_guard_is_behind_every_hook() -> None:
    torch.save(small(), "r.pth")
    hook = HOOK.format(
        name="Lowest",
        base="Hook",
        more="priority = 'LOWEST'",
        method="before_train_iter(self, runner, batch_idx, data_batch=None)",
        line="torch.nn.init.normal_(runner.model.backbone.conv1.weight)",
    )
    Path("behind.py").write_text(HEAD + IMPORTS + hook)
    Path("detector.py").write_text(
        "default_scope = 'mmdet'\ncustom_imports = dict(imports=['behind', 'ckptconv.mmdetection.guard'])\n"
        f"model = dict(type='RetinaNet', backbone=dict({PLAIN}), {REST})\n"
        + TRAINING.format(dataset=dataset())
        + f"custom_hooks = [dict(type='CheckpointGuard', fingerprint='{fingerprint_of('r.pth')}'), "
        "dict(type='Lowest')]\n"
    )
    with warnings.catch_warnings(), mock.patch.object(runner, "collect_env", dict):
        warnings.simplefilter("ignore")
        with pytest.raises(ProofError, match=r"1 of 120 tensors of backbone differ from r\.pth: conv1\.weight"):
            _runner().train()


GOOD = f"type='DetDataPreprocessor', {IMAGENET}, bgr_to_rgb=True"
TURNED = "type='DetDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False"


@dataclass(frozen=True)
class Feeds:
    """A pipeline's ``steps`` or a whole ``data``, the preprocessor, and classes that have ``code`` of their own."""

    right: bool
    data: str = dataset()
    fed: str = GOOD
    code: str = ""
    said: str = "the network gets BGR with mean "
    proved: bool = True
    detector: str = "RetinaNet"
    backbone: str = "ResNet"
    more: str = ""


FLIPS = "@register\nclass {name}({base}):\n    def {method}(self, x):\n        return super().{method}(x.flip(1))\n"
STEP = "@TRANSFORMS.register_module(force=True)\nclass {name}({base}):\n    def transform(self, results):\n{lines}"
UNKNOWN = "not proved: the input of the network cannot be measured "
FEEDS = {
    "a reader that gives red first": Feeds(
        False, dataset(reads="dict(type='LoadImageFromFile', imdecode_backend='tifffile')", image="image.tif")
    ),
    "a reader that gives red first, and is known to": Feeds(
        True,
        dataset(reads="dict(type='LoadImageFromFile', imdecode_backend='tifffile')", image="image.tif"),
        GOOD.replace("True", "False"),
    ),
    "another reader that gives blue first": Feeds(
        True, dataset(reads="dict(type='LoadImageFromFile', imdecode_backend='pillow')")
    ),
    "a reader of the user's": Feeds(
        False,
        dataset(reads="dict(type='Reads')"),
        code=STEP.format(
            name="Reads",
            base="LoadImageFromFile",
            lines="        results = super().transform(results)\n"
            "        results['img'] = results['img'][..., ::-1].copy()\n        return results\n",
        ),
    ),
    "the second of two data sets": Feeds(False, f"dict(type='ConcatDataset', datasets=[{dataset()}, {SWAPPED}])"),
    "a data set in another": Feeds(False, f"dict(type='RepeatDataset', times=1, dataset={SWAPPED})"),
    "a pipeline that is switched to": Feeds(
        False,
        more="custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=0, switch_pipeline="
        f"{SWAPPED.partition('pipeline=')[2][:-1]})]\n",
    ),
    "a data set with images of its own": Feeds(
        False,
        dataset().replace("'One'", "'Two'"),
        code="@DATASETS.register_module(force=True)\nclass Two(One):\n    def prepare_data(self, idx):\n"
        "        found = super().prepare_data(idx)\n        found['inputs'] = found['inputs'].flip(0)\n"
        "        return found\n",
        said=f"{UNKNOWN}(the data set Two has its own prepare_data)",
        proved=False,
    ),
    "a preprocessor that swaps while it trains": Feeds(
        False,
        fed=f"type='SwapsInTraining', {IMAGENET}, bgr_to_rgb=True",
        code="""
@register
class SwapsInTraining(MODELS.get('DetDataPreprocessor')):
    def forward(self, data, training=False):
        data = super().forward(data, training)
        data['inputs'] = data['inputs'].flip(1) if training else data['inputs']
        return data
""",
    ),
    "a batch augmentation that scales": Feeds(
        False,
        fed=f"{GOOD}, batch_augments=[dict(type='Scales')]",
        code="@register\nclass Scales(torch.nn.Module):\n    def forward(self, x, samples):\n"
        "        return x / 2, samples\n",
        said="the network gets RGB with mean [123.675, 116.28, 103.53] and std [116.79, 114.24, 114.75]",
    ),
    "a detector that swaps": Feeds(
        False, detector="Turns", code=FLIPS.format(name="Turns", base="RetinaNet", method="extract_feat")
    ),
    "a backbone that swaps": Feeds(
        False, backbone="TurnsInside", code=FLIPS.format(name="TurnsInside", base="ResNet", method="forward")
    ),
    "a backbone that swaps back": Feeds(
        True, fed=TURNED, backbone="TurnsBack", code=FLIPS.format(name="TurnsBack", base="ResNet", method="forward")
    ),
    "a choice of one": Feeds(False, dataset("dict(type='RandomChoice', transforms=[[dict(type='Swaps')]])")),
    "a step that is never applied": Feeds(
        True, dataset("dict(type='RandomApply', transforms=[dict(type='Swaps')], prob=0.0)")
    ),
    "an inversion": Feeds(False, dataset("dict(type='Invert', prob=1.0)"), said="the network gets RGB with mean "),
    "a step that reads the boxes": Feeds(
        True,
        dataset("dict(type='Boxes')"),
        code=STEP.format(
            name="Boxes",
            base="BaseTransform",
            lines="        results['gt_bboxes'].tensor.mul_(1.0)\n        return results\n",
        ),
    ),
    "a random step that always swaps": Feeds(
        False,
        dataset("dict(type='Jitters')"),
        code=STEP.format(
            name="Jitters",
            base="BaseTransform",
            lines="        image = results['img'][..., ::-1] + np.random.uniform(-5, 5)\n"
            "        results['img'] = image.clip(0, 255).astype(np.uint8)\n        return results\n",
        ),
        said=f"{UNKNOWN}(ValueError: Jitters changes the colours of each image differently)",
        proved=False,
    ),
}


@pytest.fixture(scope="module")
def moco18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moco")
    ckptconv.convert(raw_files.moco(folder / "moco18.pth.tar", width=8), folder / "r18.pth", "moco")
    return folder / "r18.pth"


@pytest.mark.parametrize("name", FEEDS)
def test_check_says_what_the_first_convolution_gets(name: str, moco18: Path) -> None:
    case, module = FEEDS[name], f"fooled_pixels_{list(FEEDS).index(name)}"
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)  # blue first
    cv2.imwrite("image.png", image)
    cv2.imwrite("image.tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    Path("r18.pth").symlink_to(moco18)
    Path(f"{module}.py").write_text(HEAD + IMPORTS + case.code)
    neck = REST.partition("data_preprocessor")[0]
    start = f"{SMALL}, init_cfg=dict(type='Pretrained', checkpoint='r18.pth')"
    Path("detector.py").write_text(
        f"default_scope = 'mmdet'\ncustom_imports = dict(imports=['{module}'])\n"
        f"model = dict(type='{case.detector}', backbone=dict(type='{case.backbone}', {start}), {neck}"
        f"data_preprocessor=dict({case.fed}))\n{TRAINING.format(dataset=case.data)}{case.more}"
    )
    _agrees(check(Path("detector.py")), case.right, case.proved, case.said)
    assert _is_fed(image) is case.right


def _is_fed(image: Any) -> bool:
    """Whether the first convolution of the real training gets the image as the method wants it."""
    got: list[torch.Tensor] = []

    def look(_: Any, args: Any) -> None:
        got.append(args[0].clone())
        raise _Reached

    with warnings.catch_warnings(), mock.patch.object(runner, "collect_env", dict):
        warnings.simplefilter("ignore")
        real = _runner()
        real.model.backbone.conv1.register_forward_pre_hook(look)
        with pytest.raises(_Reached):
            real.train()
    mean, std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (MEAN, STD))
    wanted = (torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) - mean) / std
    return all(torch.allclose(one, wanted, atol=1e-3) for one in got[0])
