"""Methods written in TOML, for those who do not want to write Python. Same rules, same words.

::

    name = "mine"
    sections = ["state_dict", ""]
    rules = [
      {keep = "encoder.{key...}", to = "{key...}"},
      {drop = "head.{key...}", why = "the projection head"},
      {fuse = ["q.{p}", "k.{p}", "v.{p}"], to = "qkv.{p}", op = "concat(0)"},
    ]
    without = ["norm"]  # parts of the network that these files lack and others have
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ckptconv import ops
from ckptconv.errors import UsageError, shortened
from ckptconv.methods.interface import Layout, Method, Pixels
from ckptconv.rules import Rule, drop, fuse, keep
from ckptconv.small_file import read_small

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TOP = {
    "name": str,
    "title": str,
    "paper": str,
    "repository": str,
    "sections": list,
    "rules": list,
    "without": list,
    "pixels": dict,
}
_OPS: Mapping[str, Callable[..., ops.Op]] = {"concat": ops.concat, "permute": ops.permute, "reshape": ops.reshape}
_CALL = re.compile(r"([a-z]+)\(([-0-9, ]{1,200})\)")
_NUMBER = re.compile(r" *(-?[0-9]{1,9}) *")
_HELP = "See `ckptconv methods --help`."
_MOST = 1 << 20  # bytes of a rule file


def load(path: Path) -> Method:
    """The method a rule file describes. Raises UsageError that names the file and the entry at fault."""
    try:
        table = tomllib.loads(read_small(path, _MOST).decode())
    except OSError as error:
        raise UsageError(f"the rule file {path} cannot be read: {error.strerror}", "Give a TOML file.") from error
    except UnicodeDecodeError:
        raise UsageError(f"the rule file {path} is not TOML: it is not in UTF-8", "Save it as UTF-8.") from None
    except (ValueError, OverflowError) as error:  # also of numbers that are too long for Python
        raise UsageError(f"the rule file {path} is not TOML: {shortened(str(error))}", _HELP) from None
    except RecursionError:
        raise UsageError(f"the rule file {path} nests too deeply", _HELP) from None
    try:
        return _method(table)
    except UsageError as error:
        raise UsageError(f"in the rule file {path}: {shortened(error.message)}", error.hint) from None
    except RecursionError:
        raise UsageError(f"the rule file {path} nests too deeply", _HELP) from None


def _method(table: Mapping[str, Any]) -> Method:
    for key, value in table.items():
        if key not in _TOP:
            near = get_close_matches(key, _TOP, 1)
            raise UsageError(
                f"there is no entry '{key}'", f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(_TOP)}."
            )
        if not isinstance(value, _TOP[key]):
            raise UsageError(f"'{key}' is not a {_TOP[key].__name__}", "See `ckptconv methods --help` for an example.")
    rules = tuple(_rule(entry) for entry in table.get("rules", []))
    if not rules:
        raise UsageError("there are no rules", 'Write rules = [{keep = "encoder.{key...}", to = "{key...}"}].')
    name = table.get("name", "")
    sections = table.get("sections", ["state_dict", "model", ""])
    return Method(
        name=name,
        title=table.get("title", name or "rule file"),
        paper=table.get("paper", ""),
        repository=table.get("repository", ""),
        layouts=(Layout(rules, sections, "rule file", without=table.get("without", ())),),
        pixels=_pixels(table["pixels"]) if "pixels" in table else None,
    )


def _pixels(table: Mapping[str, Any]) -> Pixels:
    if not {"mean", "std"} <= table.keys() <= {"mean", "std", "order"}:
        raise UsageError(
            "'pixels' is not understood", 'Write pixels = {mean = [r, g, b], std = [r, g, b], order = "RGB"}.'
        )
    return Pixels(**table)


def _rule(entry: Any) -> Rule:
    """One inline table as a rule."""
    kinds = {"keep": {"keep", "to", "op"}, "drop": {"drop", "why"}, "fuse": {"fuse", "to", "op"}}
    kind = next((k for k in kinds if isinstance(entry, dict) and k in entry), None)
    if kind is None or not set(entry) <= kinds[kind]:
        raise UsageError(
            f"the rule {entry} is not understood", "A rule has keep and to, drop and why, or fuse, to and op."
        )
    wrong = [k for k, v in entry.items() if not isinstance(v, list if k == "fuse" else str)]
    if wrong or (kind == "fuse" and not all(isinstance(s, str) for s in entry["fuse"])):
        raise UsageError(f"the rule {entry} is not understood", "Patterns are text; fuse takes a list of them.")
    if kind == "drop":
        return drop(entry["drop"], entry.get("why", ""))
    if "to" not in entry:
        raise UsageError(f"the rule {entry} does not say what the tensor becomes", 'Add to = "name".')
    op = _op(entry["op"]) if "op" in entry else None
    if kind == "keep":
        return keep(entry["keep"], entry["to"], op)
    if op is None:
        raise UsageError(f"the rule {entry} does not say how the parts become one", 'Add op = "concat(0)".')
    return fuse(entry["fuse"], entry["to"], op)


def _op(text: str) -> ops.Op:
    call = _CALL.fullmatch(text.strip())
    numbers = [_NUMBER.fullmatch(n) for n in call[2].split(",")] if call else []
    if call is None or call[1] not in _OPS or not all(numbers) or (call[1] == "concat" and len(numbers) > 1):
        raise UsageError(
            f"there is no op '{shortened(text)}'", "Ops: concat(axis), permute(axis, …), reshape(length, …)."
        )
    return _OPS[call[1]](*(int(n[1]) for n in numbers if n))
