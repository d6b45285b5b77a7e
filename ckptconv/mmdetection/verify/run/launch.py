"""The command that starts a run's processes, and how many they are. Imports no torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ckptconv.errors import UsageError

WORKER = "ckptconv.mmdetection.verify.run.worker"
RENDEZVOUS = "--rdzv-endpoint="  # an option with variables in it, which the shell expands
_ON_CPU = 2
_WAIT = 1800  # seconds that a node waits for the others


@dataclass(frozen=True)
class Launch:
    """``gpus`` per node, 0 for CPUs; ``nodes``; ``launcher``: none, pytorch (torchrun) or slurm (srun)."""

    launcher: str
    gpus: int
    nodes: int = 1

    @property
    def local(self) -> int:
        """Processes per node: one per GPU; on CPUs one, or two with a launcher."""
        return self.gpus or (1 if self.launcher == "none" else _ON_CPU)

    @property
    def processes(self) -> int:
        return self.local * self.nodes

    @property
    def other_nodes(self) -> bool:
        """Whether the user must start the processes of the other nodes."""
        return self.launcher == "pytorch" and self.nodes > 1

    def command(self, folder: Path, python: str = sys.executable) -> list[str]:
        """What starts all processes of this node; with Slurm, those of all nodes.

        With several nodes torchrun is started on each of them, in any order; they meet at ``$MASTER_ADDR``.
        """
        if self.launcher == "none":
            return [python, "-m", WORKER, str(folder)]
        if self.launcher == "slurm":
            devices = [f"--gres=gpu:{self.gpus}"] if self.gpus else []
            tasks = [f"--nodes={self.nodes}", f"--ntasks={self.processes}", f"--ntasks-per-node={self.local}"]
            options = ["--job-name=ckptconv", *tasks, *devices, "--kill-on-bad-exit=1"]
            return ["srun", *options, python, "-u", "-m", WORKER, str(folder)]
        meeting = (
            ["--standalone"]
            if self.nodes == 1
            else [
                f"--nnodes={self.nodes}",
                "--rdzv-backend=c10d",
                f"--rdzv-id=ckptconv-{folder.name}",
                f"{RENDEZVOUS}$MASTER_ADDR:$MASTER_PORT",
                f"--rdzv-conf=join_timeout={_WAIT},read_timeout={_WAIT}",
            ]
        )
        return [
            python,
            "-m",
            "torch.distributed.run",
            *meeting,
            f"--nproc-per-node={self.local}",
            "-m",
            WORKER,
            str(folder),
        ]


def launch(launcher: str | None, gpus: int | None, nodes: int, gpus_here: int) -> Launch:
    """How to start a run. ``gpus_here``: GPUs of this machine.

    Raises UsageError for several processes without a launcher, and for Slurm without a number of GPUs.
    """
    if launcher == "slurm" and gpus is None and not gpus_here:
        raise UsageError("the number of GPUs per node is not known on this machine", "Give `gpus`; 0 uses the CPUs.")
    wanted = gpus_here if gpus is None else gpus
    chosen = launcher or ("pytorch" if wanted > 1 or nodes > 1 else "none")
    if chosen == "none" and gpus is None:
        wanted = min(wanted, 1)
    if chosen == "none" and (wanted > 1 or nodes > 1):
        raise UsageError(
            f"`launcher='none'` starts one process, and the run needs {wanted * nodes}",
            "Give `launcher='pytorch'` or `launcher='slurm'`.",
            "launcher",
        )
    return Launch(chosen, wanted, nodes)
