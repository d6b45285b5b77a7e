"""Files of the Hugging Face Hub. huggingface_hub gives their address and the login; `http` fetches them.

A revision is bound to its commit at the start, so that all parts are of one version. A large file's ETag is the SHA-256
of its content: that is the published digest.
"""

from __future__ import annotations

import re

from ckptconv._version import __version__
from ckptconv.errors import CkptconvError, UnreadableError
from ckptconv.sources.http import HttpFile
from ckptconv.sources.interface import Digest, UnreachableError
from ckptconv.sources.optional import package

_LOGIN = "hf auth login, or HF_TOKEN"


def connect(path: str, label: str, published: Digest | None) -> HttpFile:
    """The file at ``organisation/repository/file[@revision]``."""
    hub = package("huggingface_hub", "hf")
    organisation, repository, file = path.split("/", 2)
    file, _, revision = file.partition("@")
    name = f"{organisation}/{repository}"
    try:
        url = hub.hf_hub_url(name, file, revision=revision or None)
        about = hub.get_hf_file_metadata(url)
        pinned_url = hub.hf_hub_url(name, file, revision=about.commit_hash or revision or None)
        headers = hub.utils.build_hf_headers(library_name="ckptconv", library_version=__version__)
    except Exception as error:
        raise _failed(error, label) from None
    if published is None and re.fullmatch("[0-9a-f]{64}", about.etag or ""):
        published = Digest("sha256", about.etag)
    pinned = f"commit {about.commit_hash}" if about.commit_hash else ""
    return HttpFile(pinned_url, label, published, headers=headers, pinned=pinned)


def _failed(error: Exception, label: str) -> CkptconvError:
    """An error of huggingface_hub as ours. Its class is named; its text is not shown: it may hold a signed address."""
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "GatedRepoError" or status == 403:
        return UnreadableError(
            f"{label} cannot be fetched: its repository is gated",
            f"Request access on its page, then log in: {_LOGIN}.",
        )
    if kind == "RevisionNotFoundError":
        return UnreadableError(
            f"{label} does not exist: its repository has no such revision", "Check what follows the @."
        )
    if kind in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
        return UnreadableError(f"{label} does not exist: its repository has no such file", "Check the address.")
    if kind == "RepositoryNotFoundError" or status in (401, 404):
        return UnreadableError(
            f"{label} does not exist, or you have no access", f"Check the address, or log in: {_LOGIN}."
        )
    if isinstance(error, ValueError) and status is None:
        return UnreadableError(f"{label} is not a valid address", "The form is hf://ORGANISATION/REPOSITORY/FILE.")
    return UnreachableError(f"{label} cannot be fetched ({kind})", "Try again later.")
