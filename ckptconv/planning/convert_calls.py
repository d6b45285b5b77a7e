"""The call of `convert` that a hint about a file names, with everything that was asked for already. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ckptconv.arguments import call
from ckptconv.methods import registry
from ckptconv.planning.networks_elsewhere import Alternative
from ckptconv.planning.options import Options


def convert_call(
    options: Options, method: str | None = None, alternative: Alternative | None = None, drops: Iterable[str] = ()
) -> str:
    """The call that converts, with all that was asked for already and what is given here."""
    asked: dict[str, str | None] = {"method": None, "strip_prefix": options.strip_prefix or None, "section": None}
    if alternative is not None:
        asked |= alternative.arguments
    known = method in registry.methods(options.methods)  # a caller's own has no name to type
    asked["method"] = method if known else None
    if asked["section"] is None:  # '' is the top level
        asked["section"] = options.section
    target = asked.pop("target", None) or options.target
    dropped = [*options.drop, *drops] or None
    return call("convert", "SRC", "DST", **asked, drop=dropped, channels=options.channels, target=target)
