"""The processes of a run among themselves; what they compute is shown by test_verify_ap."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ckptconv.mmdetection.verify.run.files import Job

pytestmark = pytest.mark.mmdet
SLOW_FIRST = """
import os, sys, time
from pathlib import Path
from ckptconv.mmdetection.verify.run import worker
def run(folder, job):
    if os.environ["RANK"] == "0":
        time.sleep(2)
        return worker.RunResult(1)
worker._run = run
status = worker.main(Path(sys.argv[1]))
assert (Path(sys.argv[1]) / "result.json").exists(), "it left before the result was written"
sys.exit(status)
"""


def test_no_process_leaves_before_the_result_is_written(tmp_path):
    """One that breaks while it leaves would have torchrun stop the one that still writes."""
    (tmp_path / "slow.py").write_text(SLOW_FIRST)
    Job(True, 0, "pytorch", False).save(tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(tmp_path / "slow.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
