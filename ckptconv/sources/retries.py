"""When a request is sent again. urllib3's `Retry` says after which statuses, how often, and after which pause."""

from __future__ import annotations

import time

from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError
from urllib3.util import Retry

from ckptconv.sources.interface import UnreachableError

POLICY = Retry(total=4, other=1, backoff_factor=0.5, status_forcelist={408, 429, 500, 502, 503, 504})
"""Five attempts; two at what is rarely better the next time."""
_MAX_PAUSE = 60.0  # seconds that a server may ask for
_PROGRESS = 1 << 18  # bytes after which a broken connection counts as the first one

sleep = time.sleep


class FailedAttemptError(Exception):
    """One attempt failed; the next one may succeed. ``reason`` completes "FILE cannot be fetched: ".

    ``lasting`` marks what is rarely better the next time, ``retry_after`` is the header of that name.
    """

    def __init__(
        self, reason: str, hint: str = "Try again later.", *, lasting: bool = False, retry_after: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint
        self.kind = HTTPError() if lasting else ProtocolError()  # `Retry` counts the two apart
        try:
            self.pause = float(POLICY.parse_retry_after(retry_after)) if retry_after else 0.0
        except (InvalidHeader, ValueError, OverflowError):
            self.pause = 0.0


class Retries:
    """The attempts to get one thing. ``label`` names it in messages."""

    def __init__(self, label: str) -> None:
        self._label, self._policy, self.received = label, POLICY, 0

    def wait(self, failure: FailedAttemptError) -> None:
        """Wait until the next attempt. Raises UnreachableError if there will be none."""
        reason = f"{self._label} cannot be fetched: {failure.reason}"
        if failure.pause > _MAX_PAUSE:
            raise UnreachableError(f"{reason} and asks to wait {failure.pause:.0f} s", "Try again after that time.")
        policy, self.received = POLICY if self.received >= _PROGRESS else self._policy, 0
        try:
            self._policy = policy.increment("GET", error=failure.kind)
        except MaxRetryError:
            raise UnreachableError(f"{reason} ({len(policy.history) + 1} attempts)", failure.hint) from None
        sleep(max(failure.pause, self._policy.get_backoff_time()))
