"""Commands that start a run's processes; torchrun's own parser says what it understands of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch.distributed import run as torchrun

from ckptconv.errors import UsageError
from ckptconv.mmdetection.verify.run.launch import WORKER, Launch, launch

pytestmark = pytest.mark.mmdet
FOLDER = Path("work/seed 0")


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_is_python_itself(gpus):
    command = Launch("none", gpus).command(FOLDER)
    assert command == [sys.executable, "-m", "ckptconv.mmdetection.verify.run.worker", "work/seed 0"]


@pytest.mark.parametrize("gpus", [2, 8])
def test_torchrun_starts_a_process_a_gpu(gpus):
    command = Launch("pytorch", gpus).command(FOLDER, "python")
    assert command[:3] == ["python", "-m", "torch.distributed.run"]
    understood = torchrun.parse_args(command[3:])
    assert understood.standalone
    assert understood.nnodes == "1:1"
    assert understood.nproc_per_node == str(gpus)
    assert understood.module
    assert understood.training_script == WORKER
    assert understood.training_script_args == ["work/seed 0"]


def test_torchrun_on_several_nodes_meets_at_an_address():
    understood = torchrun.parse_args(Launch("pytorch", 4, 2).command(FOLDER, "python")[3:])
    assert not understood.standalone
    assert understood.nnodes == "2"
    assert understood.nproc_per_node == "4"
    assert understood.rdzv_backend == "c10d"
    assert understood.rdzv_endpoint == "$MASTER_ADDR:$MASTER_PORT"
    assert understood.rdzv_id == "ckptconv-seed 0"  # a node that is late meets nobody of the run before
    assert understood.rdzv_conf == "join_timeout=1800,read_timeout=1800"
    assert understood.training_script_args == ["work/seed 0"]


def test_all_nodes_get_the_same_command():
    started = Launch("pytorch", 8, 4)
    assert started.command(FOLDER) == started.command(FOLDER)


def test_slurm_starts_all_nodes_at_once():
    assert Launch("slurm", 4, 2).command(FOLDER, "python") == [
        "srun",
        "--job-name=ckptconv",
        "--nodes=2",
        "--ntasks=8",
        "--ntasks-per-node=4",
        "--gres=gpu:4",
        "--kill-on-bad-exit=1",
        "python",
        "-u",
        "-m",
        "ckptconv.mmdetection.verify.run.worker",
        "work/seed 0",
    ]


def test_slurm_without_gpus_asks_for_none():
    command = Launch("slurm", 0, 2).command(FOLDER, "python")
    assert not [word for word in command if word.startswith("--gres")]
    assert "--ntasks=4" in command


@pytest.mark.parametrize(
    ("started", "local", "processes"),
    [
        (Launch("none", 0), 1, 1),
        (Launch("none", 1), 1, 1),
        (Launch("pytorch", 0), 2, 2),
        (Launch("pytorch", 1), 1, 1),
        (Launch("pytorch", 8), 8, 8),
        (Launch("pytorch", 4, 2), 4, 8),
        (Launch("slurm", 0, 3), 2, 6),
        (Launch("slurm", 8, 4), 8, 32),
    ],
    ids=str,
)
def test_there_is_a_process_a_gpu_and_two_to_be_launched_on_cpus(started, local, processes):
    assert (started.local, started.processes) == (local, processes)


@pytest.mark.parametrize(
    ("launcher", "gpus", "nodes", "there", "expected"),
    [
        (None, None, 1, 0, Launch("none", 0)),
        (None, None, 1, 1, Launch("none", 1)),
        (None, None, 1, 8, Launch("pytorch", 8)),
        (None, 0, 1, 8, Launch("none", 0)),
        (None, 1, 1, 8, Launch("none", 1)),
        (None, 4, 1, 8, Launch("pytorch", 4)),
        (None, None, 2, 8, Launch("pytorch", 8, 2)),
        (None, 1, 2, 8, Launch("pytorch", 1, 2)),
        ("none", None, 1, 0, Launch("none", 0)),
        ("none", None, 1, 8, Launch("none", 1)),
        ("none", 0, 1, 8, Launch("none", 0)),
        ("pytorch", None, 1, 0, Launch("pytorch", 0)),
        ("pytorch", 0, 1, 8, Launch("pytorch", 0)),
        ("pytorch", None, 1, 1, Launch("pytorch", 1)),
        ("slurm", 8, 2, 0, Launch("slurm", 8, 2)),
    ],
)
def test_what_is_not_said_follows_from_the_machine(launcher, gpus, nodes, there, expected):
    assert launch(launcher, gpus, nodes, there) == expected


def test_the_gpus_of_a_slurm_are_not_guessed():
    with pytest.raises(UsageError, match="the number of GPUs per node is not known on this machine"):
        launch("slurm", None, 2, 0)
    assert launch("slurm", 0, 2, 0) == Launch("slurm", 0, 2)
    assert launch("slurm", None, 2, 8) == Launch("slurm", 8, 2)


@pytest.mark.parametrize(("gpus", "nodes", "processes"), [(2, 1, 2), (1, 2, 2), (8, 2, 16)])
def test_one_process_cannot_be_several(gpus, nodes, processes):
    with pytest.raises(UsageError) as error:
        launch("none", gpus, nodes, 8)
    assert error.value.message == f"`launcher='none'` starts one process, and the run needs {processes}"
    assert error.value.hint == "Give `launcher='pytorch'` or `launcher='slurm'`."
