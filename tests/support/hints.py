"""The commands in hints, typed on the names that were refused: each converts, or is refused with something new."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from ckptconv.backbones import TargetName
from ckptconv.cli.spelling import spell
from ckptconv.errors import CkptconvError, VerdictError
from ckptconv.methods.interface import Method
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options

MOST = 12
"""Refusals of one test whose hints are typed."""

_COMMAND = re.compile(r"ckptconv (?:convert|inspect)\b.*$", re.M)


def commands(hint: str) -> list[list[str]]:
    """The words of each command of a hint, as Python or the command line spells it, without the program's name."""
    return [_split(found)[1:] for found in _COMMAND.findall(spell(hint))]


def _split(command: str) -> list[str]:
    """The words that a shell makes of a command."""
    if "$'" not in command:
        return shlex.split(command)
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    return said.decode(errors="surrogateescape").split("\0")[:-1]


def asked(words: Iterable[str], methods: tuple[Method, ...]) -> tuple[str, Options]:
    """The method and the options that the words of `ckptconv convert … SRC DST` ask for."""
    words = list(words)
    assert words[0] == "convert", words
    method, drops, given = "auto", [], {}
    for option, value in zip(words[1:-2:2], words[2:-2:2], strict=True):
        if option == "--drop":
            drops.append(value)
        elif option in ("--selfsup", "--method"):
            method = value
        else:
            given[option] = value
    channels = tuple(map(int, given.pop("--channels", "").split(","))) if "--channels" in given else ()
    options = Options(
        tuple(drops),
        given.pop("--strip-prefix", ""),
        given.pop("--section", None),
        cast("TargetName | None", given.pop("--target", None)),
        methods,
        channels,
    )
    given.pop("--rules", None)  # their methods are given
    assert not given, f"a hint has options that are not tried: {given}"
    return method, options


def require_typed(sections: Any, method: Any, options: Options, error: CkptconvError) -> None:
    """Every command of a hint works: it converts, or its own refusal offers nothing that was tried before."""
    tried = {str((method if isinstance(method, str) else "", replace(options, methods=())))}
    for _ in range(4):
        new = [words for words in commands(error.hint) if words[0] == "convert"]
        if not new:
            return
        for words in new:
            name, wanted = asked(words, options.methods)
            once = str((name, replace(wanted, methods=())))
            assert once not in tried, f"a circle: {shlex.join(words)} was tried before\n{error}"
            tried.add(once)
            if name == "auto" and not isinstance(method, str):
                name = method  # a caller's own, which has no name to type
            try:
                choose(sections, name, wanted)
            except VerdictError as again:
                error = again
            else:
                return
    raise AssertionError(f"four refusals in a row\n{error}")
