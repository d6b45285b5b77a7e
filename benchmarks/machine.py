"""What the numbers were measured on: enough to judge them, and nothing that tells whose machine it is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe(folder: Path) -> dict[str, object]:
    """Processor, memory, kernel, the file system of ``folder``, and the versions that matter."""
    return {
        "cpu": _field("/proc/cpuinfo", r"model name\s*: (.+)") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(_field("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) / (1 << 20), 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": subprocess.run(
            ["stat", "-f", "-c", "%T", folder], capture_output=True, text=True
        ).stdout.strip(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "mmdet", "ckptconv")},
    }


def available() -> int:
    """Bytes of memory that a new process could have."""
    return int(_field("/proc/meminfo", r"MemAvailable:\s*(\d+)") or 0) << 10


def _field(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
