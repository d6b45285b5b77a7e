"""Files of the Hugging Face Hub. huggingface_hub says where they are, and who is logged in; `http` fetches them.

A revision is pinned to its commit at the start, so that all parts are of one state. A large file's ETag is the SHA-256
of its content: that is what was published.
"""

from __future__ import annotations

import re

from ckptconv._version import __version__
from ckptconv.errors import CkptconvError, UnreadableError
from ckptconv.sources.http import HttpFile
from ckptconv.sources.interface import Digest, UnreachableError
from ckptconv.sources.optional import package

_LOGIN = "hf auth login, or HF_TOKEN"


def connect(path: str, shown: str, published: Digest | None) -> HttpFile:
    """The file at ``organisation/repository/file[@revision]``."""
    hub = package("huggingface_hub", "hf")
    organisation, repository, file = path.split("/", 2)
    file, _, revision = file.partition("@")
    name = f"{organisation}/{repository}"
    try:
        url = hub.hf_hub_url(name, file, revision=revision or None)
        about = hub.get_hf_file_metadata(url)
        pinned = hub.hf_hub_url(name, file, revision=about.commit_hash or revision or None)
        headers = hub.utils.build_hf_headers(library_name="ckptconv", library_version=__version__)
    except Exception as error:
        raise _failed(error, shown) from None
    if published is None and re.fullmatch("[0-9a-f]{64}", about.etag or ""):
        published = Digest("sha256", about.etag)
    state = f"commit {about.commit_hash}" if about.commit_hash else ""
    return HttpFile(pinned, shown, published, headers=headers, state=state)


def _failed(error: Exception, shown: str) -> CkptconvError:
    """What is raised for an error of huggingface_hub, which is named by its kind and never quoted."""
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "GatedRepoError" or status == 403:
        return UnreadableError(
            f"{shown} is not open to you: its repository is gated",
            f"Ask for access on its page, then log in: {_LOGIN}.",
        )
    if kind == "RevisionNotFoundError":
        return UnreadableError(
            f"{shown} is not there: its repository has no such revision", "Check what follows the @."
        )
    if kind in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
        return UnreadableError(f"{shown} is not there: its repository has no such file", "Check the address.")
    if kind == "RepositoryNotFoundError" or status in (401, 404):
        return UnreadableError(
            f"{shown} is not there, or not for you to see", f"Check the address, or log in: {_LOGIN}."
        )
    if isinstance(error, ValueError) and status is None:
        return UnreadableError(f"{shown} is no address of a file there", "It is hf://ORGANISATION/REPOSITORY/FILE.")
    return UnreachableError(f"{shown} cannot be fetched ({kind})", "Try again later.")
