"""Methods in TOML, for those who do not want to write Python: the same fields, rules and ops, and the same errors.

A method of several layouts has them as ``[[layouts]]``, each with a title, sections, families, without and rules.
`to_toml` writes any method, a built-in one too. A file of one layout has its fields at the top::

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

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ckptconv import fields
from ckptconv.backbones.interface import PositionResampling
from ckptconv.errors import UsageError, shortened
from ckptconv.methods import METHODS, op_calls
from ckptconv.methods.interface import Layout, Method, Pixels, Release
from ckptconv.rules import Drop, Fuse, Keep, Rule, Split, drop, fuse, keep, split, under
from ckptconv.small_file import read_small

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LAYOUT = ("title", "sections", "families", "without", "rules")
_SHORT = ("sections", "families", "without", "rules")
"""What stands at the top in a file of one layout."""
_RESAMPLING = ("position_resampling", "position_resampling_with_registers")
_OWN = (
    *("name", "title", "aliases", "paper", "repository", "pixels", "guess", "num_heads", "eps", "num_registers"),
    *_RESAMPLING,
    *("norm", "releases"),
)
_TOP = (*_OWN, *_SHORT, "layouts", "converted")
_SECTIONS = ("state_dict", "model", "")
"""Where the weights are looked for unless the file says it."""
_RULES: Mapping[str, tuple[str, ...]] = {
    "keep": ("keep", "to", "op", "by"),
    "drop": ("drop", "why", "instead"),
    "fuse": ("fuse", "to", "op"),
    "split": ("split", "to", "axis", "why", "ops", "op", "by"),
    "under": ("under", "rules"),
}
_ONE_RULE = 'Write rules = [{keep = "encoder.{key...}", to = "{key...}"}].'
_HELP = "See how to write one: ckptconv guide rules"
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


# -- reading ----------------------------------------------------------------------------------------------------------


def _method(table: Mapping[str, Any]) -> Method:
    _require_known(table, _TOP)
    if "layouts" in table:
        for key in _SHORT:
            if key in table:
                raise UsageError(f"'{key}' stands next to 'layouts'", "Put it into one of the layouts.")
        layouts = tuple(_layout(entry, "checkpoint") for entry in _tables("layouts", table["layouts"]))
    else:
        layouts = (_layout({key: table[key] for key in _SHORT if key in table}, "rule file"),)
    given = {key: table[key] for key in _OWN if key in table}
    name = given.setdefault("name", "")
    given.setdefault("title", name or "rule file")
    if "pixels" in given:
        given["pixels"] = _pixels(given["pixels"])
    for key in _RESAMPLING:
        if key in given:
            given[key] = _resampling(key, given[key])
    if "releases" in given:
        given["releases"] = [_release(entry) for entry in _tables("releases", given["releases"])]
    converted = tuple(_layout(entry, "checkpoint") for entry in _tables("converted", table.get("converted", [])))
    return Method(**given, layouts=layouts, converted=converted)


def _layout(table: Mapping[str, Any], title: str) -> Layout:
    _require_known(table, _LAYOUT)
    rules = tuple(_rules(table.get("rules", [])))
    if not rules:
        raise UsageError("there are no rules", _ONE_RULE)
    return Layout(**{"title": title, "sections": _SECTIONS, **table, "rules": rules})


def _pixels(table: Any) -> Pixels:
    if not isinstance(table, dict) or not {"mean", "std"} <= table.keys() <= {"mean", "std", "order"}:
        raise UsageError(
            "'pixels' is not understood", 'Write pixels = {mean = [r, g, b], std = [r, g, b], order = "RGB"}.'
        )
    return Pixels(**table)


def _resampling(key: str, table: Any) -> PositionResampling:
    if not isinstance(table, dict):
        raise UsageError(f"'{key}' is not understood", f'Write {key} = {{mode = "bicubic", antialias = true}}.')
    _require_known(table, [field.name for field in fields_of(PositionResampling)])
    return PositionResampling(**table)


def _release(table: Mapping[str, Any]) -> Release:
    _require_known(table, [field.name for field in fields_of(Release)])
    return Release(**{"name": "", "url": "", **table})


def _tables(key: str, value: object) -> tuple[dict[str, Any], ...]:
    return fields.items(key, value, dict, "tables", hint=f"Write [[{key}]] before each.")


def _require_known(table: Mapping[str, Any], known: Iterable[str]) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
            raise UsageError(f"there is no entry '{key}'", hint)


def _rules(entries: object) -> Iterator[Rule]:
    for entry in fields.items("rules", entries, object, "rules", hint=_ONE_RULE):
        yield from _rule(entry)


def _rule(entry: Any) -> tuple[Rule, ...]:
    """One inline table as a rule, or as all those that it puts under a prefix."""
    kind = next((k for k in _RULES if isinstance(entry, dict) and k in entry), None)
    if kind is None or not set(entry) <= set(_RULES[kind]):
        hint = "A rule has keep and to, drop and why, fuse, to and op, split and to, or under and rules."
        raise UsageError(f"the rule {entry} is not understood", hint)
    if kind == "under":
        return under(entry["under"], _rules(entry.get("rules", [])))
    lists = {"fuse", "by", "to", "ops"} if kind == "split" else {"fuse", "by"}
    for key, value in entry.items():
        if key == "axis":
            continue
        if not isinstance(value, list if key in lists else str) or not all(isinstance(text, str) for text in value):
            hint = "Patterns are text; fuse, by, and the to of a split take a list of them."
            raise UsageError(f"the rule {entry} is not understood", hint)
    if kind == "drop":
        return (drop(entry["drop"], entry.get("why", ""), entry.get("instead", "")),)
    if "to" not in entry:
        raise UsageError(f"the rule {entry} does not say what the tensor becomes", 'Add to = "name".')
    op = op_calls.parsed(entry["op"]) if "op" in entry else None
    if kind == "split":
        axis, why = entry.get("axis", 0), entry.get("why", "")
        ops = [op_calls.parsed(text) for text in entry.get("ops", ())]
        return (split(entry["split"], entry["to"], axis, why, ops, op, entry.get("by", ())),)
    if kind == "keep":
        return (keep(entry["keep"], entry["to"], op, entry.get("by", ())),)
    if op is None:
        raise UsageError(f"the rule {entry} does not say how the parts become one", 'Add op = "concat(0)".')
    return (fuse(entry["fuse"], entry["to"], op),)


# -- writing ----------------------------------------------------------------------------------------------------------


def to_toml(method: Method) -> str:
    """The method as a rule file, which `load` reads as an equal one.

    Raises UsageError for an op of another package, which has no name in TOML.
    """
    given = {field.name: (getattr(method, field.name), field.default) for field in fields_of(method)}
    lines = [
        f"{key} = {_written(value)}"
        for key in _OWN
        for value, default in (given[key],)
        if key in ("name", "title") or (value != default and key != "releases")
    ]
    if method.releases:
        lines += ["releases = [", *(f"  {_written(release)}," for release in method.releases), "]"]
    for key in ("layouts", "converted"):
        for layout in given[key][0]:
            lines += ["", f"[[{key}]]", *_layout_lines(layout)]
    return "\n".join(lines) + "\n"


def _layout_lines(layout: Layout) -> Iterator[str]:
    yield f"title = {_written(layout.title)}"
    yield f"sections = {_written(layout.sections)}"
    if layout.families:
        yield f"families = {_written(layout.families)}"
    if layout.without:
        yield f"without = {_written(layout.without)}"
    yield "rules = ["
    for rule in layout.rules:
        yield f"  {_written(_as_table(rule))},"
    yield "]"


def _as_table(rule: Rule) -> dict[str, object]:
    """A rule's inline table, without what is empty."""
    table: dict[str, object]
    op = "" if isinstance(rule, Drop) or rule.op is None else op_calls.written(rule.op)
    by = [name.text for name in rule.by] if isinstance(rule, Keep | Split) else []
    if isinstance(rule, Drop):
        table = {"drop": rule.source.text, "why": rule.why, "instead": rule.instead}
    elif isinstance(rule, Fuse):
        table = {"fuse": [s.text for s in rule.sources], "to": rule.target.text, "op": op}
    elif isinstance(rule, Split):
        targets = [target.text if target else "" for target in rule.targets]
        ops = [op_calls.written(each) for each in rule.ops]
        table = {"split": rule.source.text, "to": targets, "axis": rule.axis, "why": rule.why, "ops": ops}
        table |= {"op": op, "by": by}
    else:
        table = {"keep": rule.source.text, "to": rule.target.text, "op": op, "by": by}
    return {key: value for key, value in table.items() if value}


def _written(value: object) -> str:
    """A value as TOML writes it; a dataclass as an inline table of its fields, without those that are empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # escapes as JSON's, and one more
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    table = value if isinstance(value, dict) else {key: known for key, known in vars(value).items() if known}
    return "{" + ", ".join(f"{key} = {_written(known)}" for key, known in table.items()) + "}"


def template(method: Method) -> str:
    """The method as a rule file to start from: a built-in one under a name that is free."""
    if method not in METHODS:
        return to_toml(method)
    own = replace(method, name=f"my-{method.name}", aliases=(), releases=())
    return f"# A copy of the built-in method {method.name}, without its aliases and releases.\n{to_toml(own)}"
