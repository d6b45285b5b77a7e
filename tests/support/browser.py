"""A headless Chromium, driven through its debugging pipe: how a page looks, what it logs, and what it asks for."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_PATIENCE = 30.0


def found() -> str | None:
    """The path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Opened:
    """What one page did in the browser. ``logged``: errors and warnings; ``requested``: addresses besides its own."""

    logged: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    width: int = 0
    scroll_width: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    picture: bytes = b""


class Browser:
    """One browser with one tab."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._rest, self._number = b"", 0
        self._events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    _session: str | None = None

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._back], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError("no answer from the browser")
            read = os.read(self._back, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(
        self,
        page: Path,
        width: int,
        dark: bool = False,
        picture: bool = False,
        values: dict[str, str] | None = None,
        media: str = "screen",
        keys: Sequence[str] = (),
    ) -> Opened:
        """Show a page at this width, by day or by night, on the screen or as it is printed.

        ``keys`` are pressed, one after the other; then ``values``, expressions of JavaScript, are evaluated there.
        """
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme], media=media)
        self._events.clear()
        address = page.resolve().as_uri()
        self._call("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())
        for key in keys:
            self._press(key)
        opened = Opened(width=width)
        opened.scroll_width = self._evaluate("document.documentElement.scrollWidth")
        opened.values = {name: self._evaluate(code) for name, code in (values or {}).items()}
        for event in self._events:
            method, what = event.get("method", ""), event.get("params", {})
            if method == "Network.requestWillBeSent" and not what["request"]["url"].startswith(("data:", address)):
                opened.requested.append(what["request"]["url"])
            elif method == "Log.entryAdded":
                opened.logged.append(what["entry"]["text"])
            elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                opened.logged.append(json.dumps(what)[:500])
        if picture:
            opened.picture = self.picture(width)
        return opened

    def picture(self, width: int, **format: Any) -> bytes:
        """The whole page that is open, as a PNG unless ``format`` says another."""
        taken = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=self._whole(width), **format)
        return base64.b64decode(taken["data"])

    def _press(self, key: str) -> None:
        known = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=known, **text)

    def _whole(self, width: int) -> dict[str, float]:
        height = self._evaluate("document.documentElement.scrollHeight")
        return {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}

    def _evaluate(self, code: str) -> Any:
        return self._call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile, which ends with the block. Raises RuntimeError where there is none."""
    path = found()
    if path is None:
        raise RuntimeError(f"none of {', '.join(NAMES)} is installed")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:

        def descriptors() -> None:  # it reads from 3 and writes to 4
            os.dup2(to_read, 13)
            os.dup2(from_write, 14)
            os.dup2(13, 3)
            os.dup2(14, 4)

        process = subprocess.Popen(
            [path, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=descriptors,
        )
        os.close(to_read)
        os.close(from_write)
        try:
            yield Browser(process, to_write, from_read)
        finally:
            os.close(to_write)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_read)
