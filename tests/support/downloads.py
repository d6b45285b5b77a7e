"""What pip would download, said before it does: ``python -m tests.support.downloads ARGUMENT…``, as for `pip install`.

On Linux with x86-64 the wheel of torch on PyPI is built for CUDA and brings gigabytes of libraries; other indexes have
one for the CPU. Where it cannot be told, nothing is said: the download itself says what is wrong.
"""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_SECONDS = 300
CPU = "https://download.pytorch.org/whl/cpu"


def planned(arguments: Sequence[str]) -> list[Mapping[str, Any]]:
    """The items of pip's installation report, or none where pip fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--report", str(report), *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=_SECONDS)
        items: list[Mapping[str, Any]] = json.loads(report.read_text())["install"] if report.exists() else []
    return items


def size(url: str) -> int:
    """Bytes to fetch from an address: none for a file on this disk."""
    if urlsplit(url).scheme == "file":
        return 0
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(answer.headers["Content-Length"])


def said(items: Sequence[Mapping[str, Any]]) -> str:
    """One sentence, with the way out where it is a torch for CUDA."""
    names = [item["metadata"]["name"] for item in items]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(size, (item["download_info"]["url"] for item in items)))
    torch = next((item["metadata"]["version"] for item in items if item["metadata"]["name"] == "torch"), "")
    text = f"pip is going to download {total / 1e9:.1f} GB for torch {torch}"
    if any(name.lower().startswith("nvidia") for name in names):
        return f"{text}, which is built for CUDA here; without CUDA it is 0.2 GB: make test INDEX={CPU}"
    return text


def main() -> None:
    try:
        items = planned(sys.argv[1:])
        if any(item["metadata"]["name"] == "torch" for item in items):
            print(said(items), flush=True)
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        pass


if __name__ == "__main__":
    main()
