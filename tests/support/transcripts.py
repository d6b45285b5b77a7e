"""README.md and the guide as transcripts: the commands that a page shows, run, and what they print.

`python -m tests.support.transcripts [PAGE …]` writes into the pages what the commands print now.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ckptconv import guide
from ckptconv.backbones.resnet import ResNet
from ckptconv.backbones.vit import VisionTransformer
from tests.support import forked, hollow
from tests.support.cases import case

ROOT = Path(__file__).parent.parent.parent
README = "README"
INPUTS = {
    "moco_v2.pth": "moco_v2_r50_legacy",
    "dino_r50_full.pth": "dino_r50_full",
    "swav_800ep.pth": "swav_r50_released",
}
DINOV3 = "dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
"""The name of a release that is given after a login only. Here it has made-up numbers: it is not that release."""
CONVERTED = {"moco_r50.pth": f"--selfsup moco {next(iter(INPUTS))}", "vits16.pth": DINOV3}
"""Files that pages start from, and what makes them."""
MMDETECTION = ("emit-config", "check", "verify-ap", "doctor")
"""Commands that print something else, or nothing, where MMDetection is not installed."""
RAW_CONFIG = f"""_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
model = dict(backbone=dict(init_cfg=dict(checkpoint="{next(iter(INPUTS))}")))
"""
_WITH_TIMM = "from tests.support import pretrain\npretrain.module('timm')\nfrom ckptconv.cli import main\nmain()"
TOOL = ".venv/lib/python3.11/site-packages/mmdet/.mim/tools/train.py"
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"^```\w+\n(# ([\w.-]+\.(?:py|toml))\n.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Step:
    """A command, or a Python program (then it prints nothing), with the output that the page shows for it."""

    command: str
    """What follows the prompt, or the program's text."""
    output: str
    span: tuple[int, int]
    """Where the output stands in the page's text."""
    program: bool = False

    def __str__(self) -> str:
        return self.command.partition("\n")[0]


def pages() -> dict[str, Path]:
    """README and the guide's pages, by name."""
    return {README: ROOT / "README.md", **{topic.name: topic.path for topic in guide.topics()}}


def files(text: str) -> dict[str, str]:
    """The files that a page shows: blocks whose first line is a comment with a file's name."""
    return {name: content for content, name in _FILE.findall(text)}


def steps(text: str, mmdetection: bool) -> list[Step]:
    """The commands and programs of a page, in order: those that need MMDetection, or those that do not."""
    made = []
    for block in _BLOCK.finditer(text):
        if _FILE.fullmatch(block[0]):
            continue
        commands = list(_commands(block)) if block[1] == "console" else [Step(block[2], "", block.span(2), True)]
        if mmdetection == any(map(_needs_mmdetection, commands)):
            made += commands
    return made


def _commands(block: re.Match[str]) -> Iterator[Step]:
    for part in re.finditer(r"^\$ ((?:[^\n]*\\\n)*[^\n]*)\n((?:(?!\$ ).*\n)*)", block[2], re.M):
        start = block.start(2)
        yield Step(part[1], part[2], (start + part.start(2), start + part.end(2)))


def _needs_mmdetection(step: Step) -> bool:
    if step.program:
        return "ckptconv.mmdetection" in step.command or "import torch" in step.command
    return any(f"ckptconv {name}" in step.command for name in MMDETECTION)


def make_inputs(folder: Path) -> Path:
    """The checkpoints that pages name, at their full size, and a data set."""
    for file, layout in INPUTS.items():
        hollow.fill(layout, folder / file)
    make_dinov3(folder / DINOV3)
    for name, source in CONVERTED.items():
        _run([sys.executable, "-m", "ckptconv", "convert", *source.split(), name], folder)
    if find_spec("cv2"):  # comes with MMDetection
        from tests.support import tiny_coco

        tiny_coco.roboflow(folder / "rf", names=("ball", "box"))
        tiny_coco.make(folder / "my_data")
    (folder / "raw.py").write_text(RAW_CONFIG, encoding="utf-8")
    _make_refused(folder)
    _make_vit(folder / "vit_tiny.pth")
    return folder


def _make_refused(folder: Path) -> None:
    """Small files that are refused, each for one reason."""
    import torch
    from safetensors.torch import save_file

    network = ResNet((2, 2, 2, 2), False, 64, 64, 64, groups=1, stem_kernel=7, in_channels=3)
    state = {name: torch.full(shape, 0.5) if shape else torch.tensor(1) for name, shape in network.entries().items()}
    torch.save({"state_dict": {f"model.resnet.{n}": t for n, t in state.items()}}, folder / "prefixed.pth")
    last = "layer4.1."
    short = {f"module.encoder_q.{n}": t for n, t in state.items() if not n.startswith(last)}
    torch.save({"state_dict": short}, folder / "cut_short.pth")
    more = {"ema.decay": torch.ones(1)}
    torch.save({"state_dict": {**{f"backbone.{n}": t for n, t in state.items()}, **more}}, folder / "extra.pth")
    whole = (folder / "prefixed.pth").read_bytes()
    (folder / "half.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "page.pth").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{'0' * 64}", "size 377664473", "")
    (folder / "pointer.pth").write_text("\n".join(lines))
    with zipfile.ZipFile(folder / "script.pt", "w") as archive:  # as torch.jit.save writes it
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl", "version"):
            archive.writestr(f"script/{name}", b"")
    save_file({name: state[name] for name in list(state)[:20]}, folder / "model-00001-of-00002.safetensors")


def _make_vit(path: Path) -> None:
    """A ViT-Ti/16 for images of 224 pixels, in the names that DINO and timm share."""
    import torch

    network = VisionTransformer(192, 12, 768, 16, 14 * 14)
    torch.save({name: torch.full(shape, 0.5) for name, shape in network.entries().items()}, path)


def make_dinov3(path: Path) -> None:
    """The released file of a DINOv3 ViT-S/16: names as in its trainings, dinov3/layers/rope_position_encoding.py."""
    import torch

    prefix = "backbone."
    state = {}
    for name, spec in case("dinov3_vits16_teacher").tensors.items():
        if name.startswith(prefix) and "local_cls_norm" not in name:
            state[name.removeprefix(prefix)] = torch.full(spec.shape, 0.5)
            if name.endswith("bias_mask"):  # no bias of keys
                state[name.removeprefix(prefix)].view(3, -1)[1] = 0
    state["rope_embed.periods"] = (100 ** (torch.arange(16) / 16)).bfloat16().float()
    torch.save(state, path)


def prepare(folder: Path, inputs: Path, text: str, todo: Iterable[Step]) -> None:
    """Give the folder what the steps of a page start from; links, for the inputs are a gigabyte."""
    made_here = {
        name
        for name, source in CONVERTED.items()
        if any(f"convert {source.split()[-1]} {name}" in step.command for step in todo)
    }
    for path in inputs.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
        elif path.name not in made_here:
            os.link(path, folder / path.name)
    for name, content in files(text).items():
        (folder / name).write_text(content, encoding="utf-8")


def run(step: Step, folder: Path) -> str:
    """What the step prints, both streams as on a terminal, and its exit code if that is not 0."""
    if step.program:
        return _run([sys.executable, "-c", step.command], folder, _needs_mmdetection(step))
    words = shlex.split(step.command.replace("\\\n", " "))
    if words[0] == "cat":
        return (folder / words[1]).read_text(encoding="utf-8")
    command = [sys.executable, "-m", *words] if words[0] == "ckptconv" else [sys.executable, *words[1:]]
    config = folder / words[2] if words[1] == "check" else None
    if config is not None and config.is_file() and "TimmBackbone" in config.read_text(encoding="utf-8"):
        command = [sys.executable, "-c", _WITH_TIMM, *words[1:]]
    return _run(command, folder, words[1] in ("check", "verify-ap"))


def _run(command: list[str], folder: Path, mmdetection: bool = False) -> str:
    server = forked.MMDETECTION if mmdetection else forked.COMMANDS
    done = forked.run(command, cwd=folder, together=True, server=server)
    return done.stdout + (f"[exit {done.returncode}]\n" if done.returncode else "")


def shown(text: str, folder: Path) -> str:
    """An output as a page shows it: paths are those of no machine. Tables are padded with spaces."""
    from ckptconv.mmdetection.config import training_commands

    if (tool := training_commands.tool()) is not None:
        text = text.replace(str(tool), TOOL)
    text = text.replace(training_commands.python(), "python").replace(f"{folder}/", "/home/you/")
    return re.sub(r" +$", "", text, flags=re.M)


def normal(text: str) -> str:
    """An output without what differs from run to run: times."""
    return re.sub(r"\d+\.\d+ s\b", "T s", text).strip()


def main() -> None:
    wanted = sys.argv[1:] or list(pages())
    with tempfile.TemporaryDirectory() as made:
        (inputs := Path(made, "inputs")).mkdir()
        make_inputs(inputs)
        for name in wanted:
            path = pages()[name]
            for mmdetection in (False, True):
                text = path.read_text(encoding="utf-8")
                todo = steps(text, mmdetection)
                (folder := Path(made, f"{name}-{mmdetection}")).mkdir()
                prepare(folder, inputs, text, todo)
                printed = [(step, shown(run(step, folder), folder)) for step in todo]
                for step, output in reversed(printed):
                    if normal(output) != normal(step.output) and not step.program:
                        text = text[: step.span[0]] + output + text[step.span[1] :]
                    elif step.program and output:
                        sys.exit(f"{path}: a program prints:\n{output}")
                path.write_text(text, encoding="utf-8")
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
