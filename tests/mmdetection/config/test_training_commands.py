"""A config that is moved finds its checkpoint, and the commands that `check` prints train it, typed as they are."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptconv.errors import UsageError
from ckptconv.mmdetection.check.run import check
from ckptconv.mmdetection.config import emit, training_commands
from ckptconv.mmdetection.config.options import STYLES, Choices
from ckptconv.mmdetection.config.training_commands import Rate
from tests.support import converted, forked, tiny_coco
from tests.support.converted import OWN, read

pytestmark = pytest.mark.mmdet

ROOT = Path(__file__).parents[3]
TOOL = OWN.parent / "tools" / "train.py"
BOXES = Choices("retinanet", norm="BN", batch_size=1, gpus=2)
SMALL = (
    "train_dataloader.num_workers=0 train_dataloader.persistent_workers=False train_cfg.max_epochs=1 "
    "train_dataloader.dataset.pipeline.2.scale='(64,64)' val_dataloader=None val_evaluator=None val_cfg=None "
    "test_dataloader=None test_evaluator=None test_cfg=None default_hooks.logger.interval=1 "
    "env_cfg.dist_cfg.backend=gloo env_cfg.mp_cfg.mp_start_method=None"
)
"""Two images of 64 pixels, once, on a CPU, and no evaluation."""


@pytest.fixture(scope="module")
def r18(tmp_path_factory) -> Path:
    return converted.convert(tmp_path_factory.mktemp("r18"))


def start(path: Path) -> str:
    found: str = read(path)["model"]["backbone"]["init_cfg"]["checkpoint"]
    return found


# A config that is moved


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("folder", ["A", "a folder", "it's", 'of "quotes"', "back\\slash", "{{ fileBasename }}", "ü"])
def test_a_checkpoint_beside_the_config(r18, tmp_path, monkeypatch, style, folder):
    home, other = tmp_path / folder, tmp_path / "B"
    home.mkdir()
    other.mkdir()
    shutil.copy(r18, home / "r18.pth")
    monkeypatch.chdir(home)
    text = emit.write("r18.pth", "a.py", Choices("retinanet", style=style)).text
    monkeypatch.chdir(other)
    if folder != "{{ fileBasename }}":  # mmengine itself reads another name then, for every config
        assert start(home / "a.py") == f"{home}/r18.pth"
    assert ("'{{ fileDirname }}/r18.pth'" in text) == (folder in ("A", "a folder", "ü"))
    if folder in ("A", "a folder", "ü"):
        home.rename(tmp_path / "C")
        assert start(tmp_path / "C" / "a.py") == f"{tmp_path}/C/r18.pth"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("detector", ["retinanet", "mask-rcnn-c4"])
def test_a_checkpoint_elsewhere(r18, tmp_path, monkeypatch, style, detector):
    (tmp_path / "weights").mkdir()
    shutil.copy(r18, tmp_path / "weights" / "r18.pth")
    monkeypatch.chdir(tmp_path)
    emit.write("weights/r18.pth", "a.py", Choices(detector, style=style))
    for place in ("a.py", "b.py", "weights/a.py"):  # copied beside its file, too
        if place != "a.py":
            shutil.copy("a.py", place)
        assert start(tmp_path / place) == f"{tmp_path}/weights/r18.pth"
        monkeypatch.chdir("/")
        assert start(tmp_path / place) == f"{tmp_path}/weights/r18.pth"
        monkeypatch.chdir(tmp_path)
    head = read(tmp_path / "a.py")["model"].get("roi_head", {}).get("shared_head")
    assert (head and head["init_cfg"]["checkpoint"]) in (None, f"{tmp_path}/weights/r18.pth")


def test_a_link_is_named_and_not_what_it_leads_to(r18, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(r18, "latest.pth")
    assert "'{{ fileDirname }}/latest.pth'" in emit.write("latest.pth", "a.py", BOXES).text
    os.symlink(r18.parent, "linked")
    emit.write("linked/r18.pth", r18.with_name("a.py"), BOXES)
    assert start(r18.with_name("a.py")) == str(r18)
    assert start(tmp_path / "linked" / "a.py") == f"{tmp_path}/linked/r18.pth"
    os.symlink(tmp_path / "a.py", "linked/link.py")  # read where the link is, not where the text is
    emit.write("latest.pth", "linked/link.py", BOXES, force=True)
    assert start(r18.with_name("link.py")) == start(tmp_path / "a.py") == f"{tmp_path}/latest.pth"


def test_names_of_every_kind(r18, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("it's.pth", '"x".pth', "a\nb.pth", "back\\slash.pth", "{{ fileBasename }}.pth", "~x.pth"):
        shutil.copy(r18, name)
        emit.write(name, "a.py", BOXES, force=True)
        assert start(tmp_path / "a.py") == f"{tmp_path}/{name}"


def test_a_printed_config_has_the_absolute_path(r18, tmp_path, monkeypatch):
    """Nobody knows where it will stand."""
    monkeypatch.chdir(r18.parent)
    Path("own.py").write_text(f"_base_ = {str(OWN / 'retinanet' / 'retinanet_r50_fpn_1x_coco.py')!r}\n")
    for choices in (BOXES, Choices(base="own.py")):
        (tmp_path / "a.py").write_text(emit.emit("r18.pth", choices).text)
        assert start(tmp_path / "a.py") == str(r18)
    os.remove("own.py")


def test_an_emitted_config_as_a_base(r18, tmp_path, monkeypatch):
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    shutil.copy(r18, home / "r18.pth")
    emit.write(home / "r18.pth", home / "a.py", BOXES)
    monkeypatch.chdir(other)
    for style in STYLES:
        emit.write("../home/r18.pth", "b.py", Choices(base="../home/a.py", norm="BN", style=style), force=True)
        monkeypatch.chdir("/")
        assert start(other / "b.py") == f"{home}/r18.pth"
        monkeypatch.chdir(other)
    (other / "c.py").write_text("_base_ = '../home/a.py'\n")
    assert start(other / "c.py") == f"{home}/r18.pth"


def test_check_from_another_folder(r18, tmp_path, monkeypatch):
    home, moved = tmp_path / "A", tmp_path / "C"
    home.mkdir()
    shutil.copy(r18, home / "r18.pth")
    emit.write(home / "r18.pth", home / "a.py", BOXES)
    shutil.copytree(home, moved)
    shutil.rmtree(home)
    monkeypatch.chdir("/")
    found = check(moved / "a.py")
    assert found.good
    assert found.modules[0].checkpoint == f"{moved}/r18.pth"


def test_a_config_and_its_checkpoint_that_were_apart(r18, tmp_path, monkeypatch):
    """Where both were moved, and the checkpoint is not where it was, the hint is the line to write."""
    shutil.copy(r18, tmp_path / "r18.pth")
    (tmp_path / "A").mkdir()
    emit.write(tmp_path / "r18.pth", tmp_path / "A" / "a.py", BOXES)
    (tmp_path / "r18.pth").rename(tmp_path / "A" / "r18.pth")
    monkeypatch.chdir("/")
    with pytest.raises(UsageError) as caught:
        check(tmp_path / "A" / "a.py")
    assert caught.value.message == f"backbone starts from {tmp_path}/r18.pth, but the file does not exist"
    assert caught.value.hint == (
        "Copy it there, or give its path. For a file next to the config: checkpoint='{{ fileDirname }}/r18.pth'"
    )
    line = caught.value.hint.split("config: ")[1]
    text = (tmp_path / "A" / "a.py").read_text()
    (tmp_path / "A" / "a.py").write_text(text.replace(f"checkpoint='{tmp_path}/r18.pth'", line))
    assert check(tmp_path / "A" / "a.py").good


# How to train


def test_what_a_rate_is_for():
    again = "; for another number of GPUs, emit the config again"
    for rate, text in (
        (Rate(2, 16, 0.02, True), "its learning rate, 0.02, is for 8 GPUs with 2 images each"),
        (Rate(1, 1, 0.00125, True), "its learning rate, 0.00125, is for 1 GPU with 1 image"),
        (Rate(3, 16, 0.02, True), "its learning rate, 0.02, is for 16 images a step: no number of GPUs with 3 images"),
        (Rate(2, 16, 0.02, counts=8), f"its learning rate, 0.02, is for 1 GPU with 2 images, 8 times a step{again}"),
        (
            Rate(1, 8, 0.02, counts=4),
            f"its learning rate, 0.02, is for 2 GPUs with 1 image each, 4 times a step{again}",
        ),
        (Rate(2, 16, 0.02), f"its learning rate, 0.02, is for 8 GPUs with 2 images each{again}"),
        (
            Rate(2, 0, 0.02),
            "its learning rate, 0.02, is for a number of GPUs that it does not say: 8, as MMDetection's",
        ),
        (Rate(2, 16, None, True, True), "its learning rate is scaled to any number of GPUs"),
    ):
        assert rate.text == text


def lines(rate: Rate) -> list[tuple[str, int, str]]:
    made = training_commands.commands("my a.py", rate, Path("/x y/train.py"))
    return [(c.where, c.gpus, c.text.replace(sys.executable, "python")) for c in made]


def test_commands():
    """--auto-scale-lr where the number of GPUs is another one than the rate is for, and the config can be scaled."""
    run, slurm = "'/x y/train.py' 'my a.py'", "--kill-on-bad-exit=1 python -u"
    torchrun = "python -m torch.distributed.run --standalone"
    for rate, several, tasks, scaled in (
        (Rate(2, 16, 0.02, True), 8, "--ntasks=8 --ntasks-per-node=8 --gres=gpu:8", (1, 0, 0)),
        (Rate(2, 2, 0.0025, True), 8, "--ntasks=8 --ntasks-per-node=8 --gres=gpu:8", (0, 1, 1)),
        (Rate(2, 8, 0.01, True), 4, "--ntasks=4 --ntasks-per-node=4 --gres=gpu:4", (1, 0, 0)),
        (Rate(2, 32, 0.01, True), 8, "--ntasks=16 --ntasks-per-node=8 --gres=gpu:8", (1, 1, 0)),
        (Rate(1, 10, 0.01, True), 8, "--ntasks=8 --ntasks-per-node=8 --gres=gpu:8", (1, 1, 1)),
        (Rate(3, 16, 0.02, True), 8, "--ntasks=8 --ntasks-per-node=8 --gres=gpu:8", (1, 1, 1)),
        (Rate(2, 0, 0.02), 8, "--ntasks=8 --ntasks-per-node=8 --gres=gpu:8", (0, 0, 0)),
        (Rate(2, 16, 0.02, True, True), 8, "--ntasks=8 --ntasks-per-node=8 --gres=gpu:8", (0, 0, 0)),
    ):
        more = [" --auto-scale-lr" * one for one in scaled]
        assert lines(rate) == [
            ("1 GPU", 1, f"python {run}{more[0]}"),
            (f"{several} GPUs", several, f"{torchrun} --nproc_per_node={several} {run} --launcher pytorch{more[1]}"),
            ("Slurm", int(tasks[9:11]), f"srun {tasks} {slurm} {run} --launcher slurm{more[2]}"),
        ]


def test_the_rate_of_a_config():
    made = read(OWN / "retinanet" / "retinanet_r50_fpn_1x_coco.py")
    assert training_commands.rate_of(made) == Rate(2, 16, 0.01, True, False)
    for change, rate in (
        ({"auto_scale_lr": None}, Rate(2, 0, 0.01)),
        ({"auto_scale_lr": {"base_batch_size": 4}}, Rate(2, 4, 0.01)),
        ({"auto_scale_lr": {"enable": True, "base_batch_size": 4}}, Rate(2, 4, 0.01, True, True)),
        ({"optim_wrapper": {"optimizer": {"type": "SGD"}}}, Rate(2, 16, None, True)),
        ({"optim_wrapper": {"accumulative_counts": 8}}, Rate(2, 16, None, False, False, 8)),
        ({"train_dataloader": None}, None),
        ({"train_cfg": None}, None),
    ):
        assert training_commands.rate_of({**made, **change}) == rate


def test_where_the_tools_are(tmp_path, monkeypatch):
    """In a wheel below the package; in a clone beside it."""
    assert training_commands.tool() == TOOL
    package = tmp_path / "mmdet"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mmdet")
    assert training_commands.tool() is None
    assert training_commands.command("a.py", Rate(2, 16)) is None
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "train.py").touch()
    assert training_commands.tool() == tmp_path / "tools" / "train.py"
    monkeypatch.chdir(tmp_path)
    found = training_commands.command("a.py", Rate(1, 1))
    assert found is not None
    assert found.text.endswith("python tools/train.py a.py")


@pytest.fixture(scope="module")
def project(r18, tmp_path_factory) -> Path:
    """A config for data in Roboflow's layout, emitted in its folder."""
    folder = tmp_path_factory.mktemp("a project")
    tiny_coco.roboflow(folder / "rf", images=2)
    shutil.copy(r18, folder / "r18.pth")
    said = ["--data-root", folder / "rf", "--train-ann", "train/_annotations.coco.json"]
    said += ["--val-ann", "valid/_annotations.coco.json", "--norm", "BN", "--batch-size", 1, "--gpus", 2]
    done = typed(folder, "emit-config", "r18.pth", "-d", "retinanet", *said, "-o", "a b.py")
    assert done.returncode == 0, done.stderr
    assert "next      ckptconv check 'a b.py'\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("then      on 2 GPUs: ")
    return folder


def typed(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "ckptconv", *map(str, words)], cwd=folder, env=environment())


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


@pytest.fixture(scope="module")
def commands(project, tmp_path_factory) -> dict[str, str]:
    """What `check` prints, asked from another folder."""
    done = typed(tmp_path_factory.mktemp("elsewhere"), "check", project / "a b.py")
    assert done.returncode == 0, done.stderr
    assert "train     its learning rate, 0.00125, is for 2 GPUs with 1 image each\n" in done.stdout
    shown = [line.split(maxsplit=2) for line in done.stdout.splitlines()[-3:]]
    assert [line[0] for line in shown] == ["1", "2", "Slurm"]
    return {"1": shown[0][2], "2": shown[1][2], "Slurm": " ".join(shown[2][1:])}


def trained(command: str, folder: Path, options: str, **env: str) -> str:
    python, *words = shlex.split(f"{command} --cfg-options {options}")
    assert python in ("python", sys.executable)
    done = forked.run([sys.executable, *words], cwd=folder, env=environment(**env))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_command_for_one_gpu_trains(project, commands, tmp_path):
    printed = trained(commands["1"], tmp_path, SMALL)
    assert f"guard: 120/120 tensors of backbone equal {project}/r18.pth" in printed
    assert printed.count("Epoch(train)") == 2
    assert (
        "LR is set based on batch size of 2 and the current batch size is 1. Scaling the original LR by 0.5." in printed
    )
    assert (tmp_path / "work_dirs" / "a b" / "epoch_1.pth").is_file()


def test_the_command_for_several_gpus_trains(project, commands, tmp_path):
    """On CPUs: `torch.cuda.set_device`, which mmengine calls at the start (mmengine/dist/utils.py), is left out."""
    (tmp_path / "sitecustomize.py").write_text("import torch\ntorch.cuda.set_device = lambda device: None\n")
    wrapped = "model_wrapper_cfg.type=MMDistributedDataParallel model_wrapper_cfg.device_ids=None"
    printed = trained(commands["2"], tmp_path, f"{SMALL} {wrapped}", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert f"guard: 120/120 tensors of backbone equal {project}/r18.pth" in printed
    assert printed.count("Epoch(train)") == 1  # of two images, one for each
    assert "Scaling the original LR" not in printed


def test_the_command_for_slurm_is_that_of_two_tasks(project, commands):
    """There is no Slurm here: what it would start is started by hand above."""
    assert commands["Slurm"] == (
        f"srun --ntasks=2 --ntasks-per-node=2 --gres=gpu:2 --kill-on-bad-exit=1 {sys.executable} -u {TOOL} "
        f"'{project}/a b.py' --launcher slurm"
    )


def test_check_has_the_commands_as_data(project, monkeypatch):
    monkeypatch.chdir(project)
    found = check("a b.py").training
    assert found is not None
    assert found.rate == "its learning rate, 0.00125, is for 2 GPUs with 1 image each"
    assert [(c.where, c.gpus) for c in found.commands] == [("1 GPU", 1), ("2 GPUs", 2), ("Slurm", 2)]
    assert all("'a b.py'" in c.text for c in found.commands)
    Path("b.py").write_text("_base_ = 'a b.py'\nload_from = 'x.pth'\n")
    assert check("b.py").training is None  # it does not start as it should
