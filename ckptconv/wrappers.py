"""What trainers wrap a network in, and the segments that this leaves in the names of its tensors.

Pure string work: it knows no rule, no method and no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

OUTER = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What may stand before every name: DataParallel's and DistributedDataParallel's `module.`, and `INNER`."""

INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Segments that may stand anywhere in a name, for these wrap single blocks, too: torch.compile, FSDP and activation
checkpointing (torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py). `module` is not among them: between
other segments it tells one copy of a network from another."""


COUNTERS = {
    "n_averaged": "how many networks were averaged",  # torch/optim/swa_utils.py, AveragedModel
    "steps": "how many networks were averaged",  # mmengine/model/averaged_model.py
}
"""Names next to a wrapped network that are not part of it, and what they are."""


def wrapper_of(names: Iterable[str]) -> str:
    """The wrappers that every name starts with, such as 'module.'; '' if none. `COUNTERS` do not have them."""
    names = list(names)
    wrapper = ""
    while names:
        inside = [n for n in names if n.removeprefix(wrapper) not in COUNTERS]
        found = next((w for w in OUTER if inside and all(n.startswith(wrapper + w) for n in inside)), None)
        if found is None:
            break
        wrapper += found
    return wrapper


def wrapped(name: str) -> bool:
    """Whether a name may have one of the segments of `INNER`."""
    return any(segment in name for segment in INNER)


def unwrapped(names: Sequence[str], spelled: Iterable[str] = ()) -> dict[str, str]:
    """The names that change without the segments of `INNER`, and what they are then.

    Segments that ``spelled``, the patterns of rules, write out are left to those. So are two names that would become
    one, or one that is there already: nothing tells which of them a rule means.
    """
    together = "\n".join(names)
    there = [segment for segment in INNER if segment in together]
    if not there:
        return {}
    written = {segment for text in spelled for segment in text.split(".")}
    gone = set(there) - written
    short = {name: ".".join(s for s in name.split(".") if s not in gone) for name in names}
    counts = Counter(short.values())
    return {name: to for name, to in short.items() if to not in ("", name) and counts[to] == 1}
