"""Words that people type for a command that has another name: the command that does it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_CONVERT = "ckptconv convert SRC DST writes the backbone as MMDetection loads it."
_EMIT = "ckptconv emit-config CKPT -o detector.py writes the config."
_VERIFY = "ckptconv verify-ap CONFIG trains or tests a detector and judges its AP."
_INSPECT = "ckptconv inspect SRC shows what a checkpoint holds."
_DIFF = "ckptconv diff A B compares two checkpoints."
_CHECK = "ckptconv check CONFIG proves that a detector starts from its checkpoint."
_DOCTOR = "ckptconv doctor says what is installed, and the commands that install the rest."

MEANT: Mapping[str, str] = {
    **dict.fromkeys(("remap", "transform", "translate", "export", "conv", "strip"), _CONVERT),
    **dict.fromkeys(("emit", "config", "generate", "make-config"), _EMIT),
    "train": f"{_EMIT} ckptconv check detector.py prints the command that trains with it.",
    **dict.fromkeys(("test", "eval", "evaluate", "benchmark", "verify", "ap"), _VERIFY),
    **dict.fromkeys(("info", "show", "list", "ls", "dump", "identify", "keys", "print"), _INSPECT),
    **dict.fromkeys(("compare", "cmp", "comparison"), _DIFF),
    **dict.fromkeys(("prove", "proof", "validate"), _CHECK),
    **dict.fromkeys(("env", "environment", "setup", "install"), _DOCTOR),
    **dict.fromkeys(("docs", "manual", "man"), "ckptconv guide lists the pages of the guide."),
    "download": "ckptconv releases lists the published files; ckptconv convert fetches one by its name.",
    "plan": "ckptconv convert --dry-run SRC DST plans, and writes nothing.",
}
_UNKNOWN = re.compile(r"no such command '([^']*)'")


def meant(message: str) -> str:
    """The hint for an unknown command, from the sentence that refuses it; '' if the word means nothing here."""
    found = _UNKNOWN.search(message)
    return MEANT.get(found[1].lower().replace("_", "-"), "") if found else ""
