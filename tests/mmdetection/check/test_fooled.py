"""Configs that look wrong and start rightly, and that look right and start wrongly: `check` takes none for another.

What is true of each is told by mmengine's real Runner and plain torch: the detector is built, initialised, loaded and
handed to its hooks as a training does it, and its tensors are compared with those that were written into the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import mmcv
import numpy as np
import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.runner import Runner, runner

import ckptconv
from ckptconv.mmdetection.check.run import check
from tests.support import raw_files

pytestmark = pytest.mark.mmdet

State = Mapping[str, torch.Tensor]
SMALL = "depth=18, stem_channels=8, base_channels=8, norm_eval=False"
START = "init_cfg=dict(type='Pretrained', checkpoint='r.pth')"
IMAGENET = "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]"
HEAD = """
import torch
from mmdet.models import FPN, ResNet
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.hooks import Hook
from mmengine.model import BaseModule
from mmengine.registry import HOOKS
register = MODELS.register_module(force=True)
SMALL = dict(depth=18, stem_channels=8, base_channels=8, norm_eval=False)

def stored(path):
    return torch.load(path, map_location='cpu', weights_only=True)
"""


@dataclass(frozen=True)
class Case:
    """``code`` of the user's module; the ``backbone``; what else the config says; and what must be ``held`` where.

    ``right``: whether the detector starts from the file, which the Runner's detector has to answer, too. ``said``: a
    part of the sentence that says why not. ``proved``: whether `check` can tell.
    """

    backbone: str
    held: Mapping[str, str]
    right: bool
    code: str = ""
    more: str = ""
    said: str = ""
    proved: bool = True


def small(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of a ResNet-18 of a few channels, none of them like another's."""
    torch.manual_seed(seed)
    state = ResNet(depth=18, stem_channels=8, base_channels=8).state_dict()
    return {
        name: value if name.endswith("tracked") else torch.rand(value.shape) * 0.1 + 0.5
        for name, value in state.items()
    }


REST = """neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5),
    bbox_head=dict(type='RetinaHead', num_classes=1, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[4], strides=[8, 16, 32, 64, 128])),
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True)"""

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
WHOLE = {"backbone": ""}
"""The backbone holds the file's tensors under their own names."""

CASES = {
    # right, though it looks wrong
    "read in the constructor": Case(
        "type='LoadsInInit', pretrained='r.pth'",
        {"backbone.net": ""},
        True,
        """
@register
class LoadsInInit(torch.nn.Module):
    def __init__(self, pretrained):
        super().__init__()
        self.net = ResNet(**SMALL)
        self.net.load_state_dict(stored(pretrained))
        self.net.init_weights = lambda: None
    def forward(self, x):
        return self.net(x)
""",
    ),
    "in a wrapper with a neck": Case(
        f"type='Wrapper', body=dict(type='ResNet', {SMALL}, {START})",
        {"backbone.body": ""},
        True,
        """
@register
class Wrapper(BaseModule):
    def __init__(self, body, init_cfg=None):
        super().__init__(init_cfg)
        self.body = MODELS.build(body)
        self.fpn = FPN([8, 16, 32, 64], 16, 4)
    def forward(self, x):
        return self.body(x)
""",
    ),
    "renamed by its own code": Case(
        "type='Renames'",
        {"backbone": ""},
        True,
        """
@register
class Renames(BaseModule):
    def __init__(self):
        super().__init__()
        net = ResNet(**SMALL)
        self.stem, self.norm = net.conv1, net.bn1
        self.stages = torch.nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
    def init_weights(self):
        def renamed(name):
            name = name.replace('layer', 'stages.').replace('conv1', 'stem', name.startswith('conv1'))
            name = name.replace('bn1', 'norm', name.startswith('bn1'))
            return f'stages.{int(name[7]) - 1}{name[8:]}' if name.startswith('stages') else name
        self.load_state_dict({renamed(name): value for name, value in stored('r.pth').items()})
""",
    ),
    "load_from holds the same": Case(
        f"type='ResNet', {SMALL}, {START}", WHOLE, True, more="load_from = 'detector.pth'\n"
    ),
    "only by load_from": Case(f"type='ResNet', {SMALL}", WHOLE, True, more="load_from = 'detector.pth'\n"),
    "by the whole detector's init_cfg": Case(
        f"type='ResNet', {SMALL}",
        WHOLE,
        True,
        more="model['init_cfg'] = dict(type='Pretrained', checkpoint='detector.pth')\n",
    ),
    "one of several init_cfg": Case(
        f"type='ResNet', {SMALL}, init_cfg=[dict(type='Pretrained', checkpoint='r.pth', map_location='cpu'), "
        "dict(type='Kaiming', layer='Conv2d')]",
        WHOLE,
        True,
    ),
    "positions that its class resizes": Case(
        f"type='Positions', {SMALL}, {START}",
        {"backbone": ""},
        True,
        """
@register
class Positions(ResNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bn1.register_parameter('positions', torch.nn.Parameter(torch.randn(1, 8, 6)))
    def _load_from_state_dict(self, state, prefix, *args):
        if 'bn1.positions' in state:
            state['bn1.positions'] = state['bn1.positions'][:, :, ::2].contiguous()
        super()._load_from_state_dict(state, prefix, *args)
""",
    ),
    "additions inside of its blocks": Case(
        f"type='Additions', {SMALL}, {START}",
        WHOLE,
        True,
        """
@register
class Additions(ResNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer4[0].attention = torch.nn.Conv2d(64, 64, 1)
""",
    ),
    "nothing to resume yet": Case(f"type='ResNet', {SMALL}, {START}", WHOLE, True, more="resume = True\n"),
    "a hook that only looks": Case(
        f"type='ResNet', {SMALL}, {START}",
        WHOLE,
        True,
        """
@HOOKS.register_module(force=True)
class Looks(Hook):
    def before_train(self, runner):
        runner.logger.info(str(runner.model.backbone.conv1.weight.mean()))
""",
        "custom_hooks = [dict(type='Looks')]\n",
    ),
    # wrong, though it looks right
    "a second stream": Case(
        f"type='Streams', a=dict(type='ResNet', {SMALL}, {START}), b=dict(type='ResNet', {SMALL})",
        {"backbone.a": "", "backbone.b": ""},
        False,
        """
@register
class Streams(BaseModule):
    def __init__(self, a, b, init_cfg=None):
        super().__init__(init_cfg)
        self.a, self.b = MODELS.build(a), MODELS.build(b)
""",
        said="backbone.b is not initialised from a checkpoint: it starts from random values",
    ),
    "a second stream inside of the first": Case(
        f"type='Inside', {SMALL}, {START}",
        {"backbone": "", "backbone.layer1.other": ""},
        False,
        """
@register
class Inside(ResNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer1.other = ResNet(**SMALL)
""",
        said="backbone.layer1.other is not initialised from a checkpoint",
    ),
    "another stem for another sensor": Case(
        f"type='Stem', {SMALL}, {START}",
        {"backbone": "", "backbone.stem2": "conv1."},
        False,
        """
@register
class Stem(ResNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem2 = torch.nn.Conv2d(3, 8, 7, bias=False)
""",
        said="not proved: 1 parameter of backbone.stem2 not in any file",
        proved=False,
    ),
    "init_cfg swallowed": Case(
        f"type='Swallows', {START}",
        WHOLE,
        False,
        """
@register
class Swallows(ResNet):
    def __init__(self, init_cfg=None):
        super().__init__(**SMALL)
""",
        said="starts from random values, because Swallows does not pass on its init_cfg",
    ),
    "blocks in another order": Case(
        "type='Shuffles'",
        WHOLE,
        False,
        """
@register
class Shuffles(ResNet):
    def __init__(self):
        super().__init__(**SMALL)
    def init_weights(self):
        swapped = {'layer4.0.bn': 'layer4.1.bn', 'layer4.1.bn': 'layer4.0.bn'}
        state = stored('r.pth')
        self.load_state_dict({swapped.get(n[:11], n[:11]) + n[11:]: v for n, v in state.items()})
""",
        said="not proved: ",
        proved=False,
    ),
    "channels in another order": Case(
        f"type='Flips', {SMALL}, {START}",
        WHOLE,
        False,
        """
@register
class Flips(ResNet):
    def init_weights(self):
        super().init_weights()
        self.conv1.weight.data.copy_(self.conv1.weight.data.flip(1))
""",
        said="not proved: r.pth has the values of 1 tensor of Flips under other names or in another order",
        proved=False,
    ),
    "scaled after loading": Case(
        f"type='Scales', {SMALL}, {START}",
        WHOLE,
        False,
        """
@register
class Scales(ResNet):
    def init_weights(self):
        super().init_weights()
        self.conv1.weight.data.mul_(0.5)
""",
        said="overwritten by init_weights() of Scales",
    ),
    "a hook that resets": Case(
        f"type='ResNet', {SMALL}, {START}",
        WHOLE,
        False,
        """
@HOOKS.register_module(force=True)
class Resets(Hook):
    def before_train_epoch(self, runner):
        torch.nn.init.normal_(runner.model.backbone.layer4[1].conv2.weight)
""",
        "custom_hooks = [dict(type='Resets')]\n",
        said="overwritten by the hook Resets: 1 of 120 tensors differ",
    ),
    "a hook that needs a training": Case(
        f"type='ResNet', {SMALL}, {START}",
        WHOLE,
        False,
        """
@HOOKS.register_module(force=True)
class Late(Hook):
    def before_train(self, runner):
        if len(runner._hooks) > 0:
            torch.nn.init.normal_(runner.model.backbone.conv1.weight)
""",
        "custom_hooks = [dict(type='Late')]\n",
        said="not proved: the hook Late acts before the first iteration, and check cannot run it: AttributeError",
        proved=False,
    ),
    "load_from of other weights": Case(
        f"type='ResNet', {SMALL}, {START}",
        WHOLE,
        False,
        more="load_from = 'other.pth'\n",
        said="load_from='other.pth' overwrites the backbone after its initialisation",
    ),
    "load_from under other names": Case(
        f"type='ResNet', {SMALL}",
        WHOLE,
        False,
        more="load_from = 'r.pth'\n",
        said="backbone is not initialised from a checkpoint: it starts from random values",
    ),
    "resumed from another training": Case(
        f"type='ResNet', {SMALL}, {START}",
        WHOLE,
        False,
        more="load_from = 'other.pth'\nresume = True\n",
        said="not proved: resume=True continues from other.pth",
        proved=False,
    ),
    "resumed by itself": Case(
        f"type='ResNet', {SMALL}, {START}",
        WHOLE,
        False,
        more="resume = True\nwork_dir = 'work'\n",
        said="not proved: resume=True continues from ",
        proved=False,
    ),
    "resumed from nowhere": Case(
        f"type='ResNet', {SMALL}, {START}",
        {},
        False,
        more="load_from = 'absent.pth'\nresume = True\n",
        said="resume=True continues from absent.pth, but the file does not exist",
    ),
    "two halves of two networks": Case(
        "type='Halves'",
        {"backbone": "module.encoder_q."},
        False,
        """
@register
class Halves(ResNet):
    def __init__(self):
        super().__init__(**SMALL)
    def init_weights(self):
        state = stored('two.pth')
        self.load_state_dict({
            n: state[('module.encoder_k.' if n.startswith('layer4') else 'module.encoder_q.') + n]
            for n in self.state_dict() if not n.endswith('tracked')}, strict=False)
""",
        said="not proved: ",
        proved=False,
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    state, other = small(), small(1)
    positions = {"bn1.positions": torch.rand(1, 8, 12)}
    torch.save(state, folder / "r.pth")
    torch.save({**state, **positions}, folder / "positions.pth")
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, folder / "detector.pth")
    theirs = {"state_dict": {f"backbone.{k}": v for k, v in other.items()}, "meta": {"epoch": 3, "iter": 9}}
    torch.save({**theirs, "message_hub": {}}, folder / "other.pth")
    two = {f"module.encoder_q.{k}": v for k, v in state.items()} | {
        f"module.encoder_k.{k}": v for k, v in other.items()
    }
    torch.save(two, folder / "two.pth")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_check_is_not_fooled(name: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, module = CASES[name], f"fooled_{list(CASES).index(name)}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for file in files.iterdir():
        Path(file.name).symlink_to(file)
    if "positions" in name:
        Path("r.pth").unlink()
        Path("r.pth").symlink_to(files / "positions.pth")
    Path("work").mkdir()
    Path("work", "last_checkpoint").write_text(str(tmp_path / "other.pth"))
    Path(f"{module}.py").write_text(HEAD + case.code)
    Path("detector.py").write_text(
        f"default_scope = 'mmdet'\ncustom_imports = dict(imports=['{module}'])\n"
        f"model = dict(type='RetinaNet', backbone=dict({case.backbone}), {REST})\n{case.more}"
    )
    found = check(Path("detector.py"))
    texts = [finding.text for finding in found.findings]
    assert found.good is case.right, texts
    assert found.proved is case.proved
    assert any(case.said in text for text in texts) or case.right, texts
    if not case.proved:
        assert not any("random values" in text for text in texts)
    assert started_by_the_runner(case) is case.right


def started_by_the_runner(case: Case) -> bool:
    """What is true, told by the Runner's own detector."""
    with warnings.catch_warnings(), mock.patch.object(runner, "collect_env", dict):
        warnings.simplefilter("ignore")
        cfg = Config.fromfile("detector.py")
        cfg.work_dir = cfg.get("work_dir", "runs")
        real = Runner.from_cfg(named_by_its_folder(cfg))
        own = [hook for hook in real._hooks if type(hook).__module__.startswith("fooled_")]
        for hook in own:
            hook.before_run(real)
        real._init_model_weights()
        try:
            real.load_or_resume() if not cfg.get("resume") else resume(real)
        except FileNotFoundError:
            return False
        for hook in own:
            hook.before_train(real)
            hook.before_train_epoch(real)
    file = torch.load("two.pth" if "encoder" in str(case.held) else "r.pth", weights_only=True)
    return all(_holds(real.model.get_submodule(path), file, prefix, case) for path, prefix in case.held.items())


def named_by_its_folder(cfg: Any) -> Any:
    """Runners that start in the same second have the same name otherwise, and mmengine gives them one visualizer."""
    cfg.experiment_name = Path.cwd().name
    return cfg


def resume(real: Any) -> None:
    """The part of `Runner.load_or_resume` that concerns the weights; the rest needs an optimizer and data."""
    path = real._load_from or runner.find_latest_checkpoint(real.work_dir)
    if path:
        real.load_checkpoint(path)


def _holds(module: torch.nn.Module, file: State, prefix: str, case: Case) -> bool:
    state = module.state_dict()
    for name, value in file.items():
        if not name.startswith(prefix) or name.endswith("tracked"):
            continue
        mine = name.removeprefix(prefix)
        if "Renames" in case.backbone:
            mine = RENAMED(mine)
        if name == "bn1.positions":
            value = value[:, :, ::2]
        if mine not in state or not torch.equal(state[mine], value):
            return False
    return True


def RENAMED(name: str) -> str:
    """What the class of the case calls a tensor of the file, written down once more."""
    first, _, rest = name.partition(".")
    inner = {"conv1": "stem", "bn1": "norm", **{f"layer{i + 1}": f"stages.{i}" for i in range(4)}}
    return f"{inner[first]}.{rest}"


PIPELINE = """
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64), keep_ratio=True), {step}, dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
"""
SWAPS = """
from mmcv.transforms import BaseTransform
@TRANSFORMS.register_module(force=True)
class Swaps(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'][..., ::-1]
        return results
@MODELS.register_module(force=True)
class OwnPreprocessor(MODELS.get('DetDataPreprocessor')):
    pass
"""
PADS = "type='DetDataPreprocessor', pad_size_divisor=32"


@pytest.mark.parametrize(
    ("fed", "more", "right"),
    [
        (PADS, PIPELINE.format(step=f"dict(type='Normalize', {IMAGENET}, to_rgb=True)"), True),
        (f"type='DetDataPreprocessor', {IMAGENET}, bgr_to_rgb=False", PIPELINE.format(step="dict(type='Swaps')"), True),
        (f"type='OwnPreprocessor', {IMAGENET}, bgr_to_rgb=True", "", True),
        (None, f"data_preprocessor = dict(type='DetDataPreprocessor', {IMAGENET}, bgr_to_rgb=True)\n", True),
        (f"type='DetDataPreprocessor', {IMAGENET}, bgr_to_rgb=True", PIPELINE.format(step="dict(type='Swaps')"), False),
        (
            f"type='DetDataPreprocessor', {IMAGENET}, bgr_to_rgb=True",
            PIPELINE.format(step=f"dict(type='Normalize', {IMAGENET}, to_rgb=True)"),
            False,
        ),
        (PADS, PIPELINE.format(step=f"dict(type='Normalize', {IMAGENET}, to_rgb=False)"), False),
        (PADS, PIPELINE.format(step="dict(type='RandomFlip', prob=0.5)"), False),
        (None, f"data_preprocessor = dict(type='DetDataPreprocessor', {IMAGENET}, bgr_to_rgb=False)\n", False),
        ("type='OwnPreprocessor'", PIPELINE.format(step="dict(type='Swaps')"), False),
    ],
)
def test_the_pixels_are_what_comes_out(
    fed: str | None, more: str, right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moco18: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("r18.pth").symlink_to(moco18)
    Path("swaps.py").write_text(HEAD + SWAPS)
    rest = REST.partition("data_preprocessor")[0] + ("" if fed is None else f"data_preprocessor=dict({fed})")
    start = f"{SMALL}, init_cfg=dict(type='Pretrained', checkpoint='r18.pth')"
    Path("detector.py").write_text(
        "default_scope = 'mmdet'\ncustom_imports = dict(imports=['swaps'])\n"
        f"model = dict(type='RetinaNet', backbone=dict(type='ResNet', {start}), {rest})\n{more}"
    )
    found = check(Path("detector.py"))
    assert found.good is right, [finding.text for finding in found.findings]
    assert fed_by_the_runner() is right


def fed_by_the_runner() -> bool:
    """Whether an image of random colours comes out of the real pipeline and preprocessor as the method wants it."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (32, 32, 3), np.uint8)
    mmcv.imwrite(image, "image.png")  # blue first
    with warnings.catch_warnings(), mock.patch.object(runner, "collect_env", dict):
        warnings.simplefilter("ignore")
        cfg = Config.fromfile("detector.py")
        cfg.work_dir = "runs"
        steps = cfg.pop("train_dataloader", {}).get("dataset", {}).get("pipeline", [{"type": "LoadImageFromFile"}])
        cfg.pop("val_dataloader", None)
        cfg.pop("test_dataloader", None)
        real = Runner.from_cfg(named_by_its_folder(cfg))
        results = {"img_path": "image.png"}
        for step in steps:
            if step["type"] not in ("LoadAnnotations", "Resize", "RandomFlip", "PackDetInputs"):
                results = TRANSFORMS.build(step)(results)
    inputs = torch.from_numpy(results["img"].copy()).permute(2, 0, 1)
    got = real.model.data_preprocessor({"inputs": [inputs], "data_samples": None})["inputs"][0][:, :32, :32]
    mean, std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (MEAN, STD))
    wanted = (torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) - mean) / std
    return bool(torch.allclose(got, wanted, atol=1e-4))


@pytest.fixture(scope="module")
def moco18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moco")
    ckptconv.convert(raw_files.moco(folder / "moco18.pth.tar", width=8), folder / "r18.pth", "moco")
    return folder / "r18.pth"


@pytest.mark.parametrize(
    ("name", "fix", "before", "after"),
    [
        (
            "init_cfg swallowed",
            "Pass it on in Swallows: super().__init__(init_cfg=init_cfg)",
            "super().__init__(**SMALL)",
            "super().__init__(**SMALL, init_cfg=init_cfg)",
        ),
        (
            "scaled after loading",
            "Change init_weights() of Scales: keep what init_cfg loads",
            "self.conv1.weight.data.mul_(0.5)",
            "pass",
        ),
        (
            "a second stream inside of the first",
            "Give ResNet an init_cfg where it is built",
            "ResNet(**SMALL)",
            "ResNet(**SMALL, init_cfg=dict(type='Pretrained', checkpoint='r.pth'))",
        ),
    ],
)
def test_what_is_changed_in_a_class(
    name: str, fix: str, before: str, after: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hints that no line of a config follows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("r.pth").symlink_to(files / "r.pth")
    case, number = CASES[name], list(CASES).index(name)
    for i, code in enumerate((case.code, case.code.replace(before, after))):
        Path(f"changed_{number}_{i}.py").write_text(HEAD + code)
        Path(f"detector{i}.py").write_text(
            f"default_scope = 'mmdet'\ncustom_imports = dict(imports=['changed_{number}_{i}'])\n"
            f"model = dict(type='RetinaNet', backbone=dict({case.backbone}), {REST})\n"
        )
        found = check(Path(f"detector{i}.py"))
        assert [finding.fixes for finding in found.findings] == [(fix,)] * (1 - i)
