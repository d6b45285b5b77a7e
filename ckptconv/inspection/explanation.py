"""What becomes of one name of a file, and by which rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ckptconv.arguments import call
from ckptconv.backbones import TargetName
from ckptconv.conversion.convert import MethodLike, PathLike, naming_files, options_of, wanted_method
from ckptconv.errors import UsageError, printable
from ckptconv.formats import open_checkpoint
from ckptconv.planning.identify import nearest
from ckptconv.planning.options import Options
from ckptconv.planning.problem_texts import text_of
from ckptconv.sections import section_at
from ckptconv.sources.interface import Fetching
from ckptconv.sources.locate import locate
from ckptconv.spec import TensorSpec
from ckptconv.text import section_label


@dataclass(frozen=True)
class Explanation:
    """What happens to one key: its ``fate`` ('kept', 'dropped' or 'unexplained'), the rule, and why.

    The rule is about the name without ``prefix``, which wraps every name of the section.
    """

    key: str
    spec: TensorSpec | None
    method: str
    section: str
    prefix: str
    fate: str
    target: str
    rule: str
    why: str


def explain(
    source: PathLike,
    key: str,
    method: MethodLike = "auto",
    *,
    options: Options | None = None,
    drop: Iterable[str] | None = None,
    strip_prefix: str | None = None,
    section: str | None = None,
    target: TargetName | None = None,
    rules: PathLike | None = None,
    channels: Sequence[int] | None = None,
    image_size: int | None = None,
    patch_size: int | None = None,
    num_heads: int | None = None,
    dtype: str | None = None,
    fetching: Fetching | None = None,
) -> Explanation:
    """Which rule takes a key and where it goes, in the plan that `convert` would follow, complete or not.

    Raises UsageError, with the nearest names, for a key that the section does not hold.
    """
    options = options_of(
        options,
        rules,
        drop=drop,
        strip_prefix=strip_prefix,
        section=section,
        target=target,
        channels=channels,
        image_size=image_size,
        patch_size=patch_size,
        num_heads=num_heads,
        dtype=dtype,
    )
    found = locate(source, fetching or Fetching(), options.methods)
    with naming_files(found, rules=rules), open_checkpoint(found.path) as checkpoint:
        match = nearest(checkpoint.sections, wanted_method(method, options, found), options)
        where = section_at(checkpoint.sections, match.plan.section)
    assert where is not None
    about = {
        "key": key,
        "method": match.method.name,
        "section": match.plan.section,
        "prefix": match.plan.prefix,
    }
    problem = next((text_of(p) for p in match.plan.problems if p.key == key), "")
    for move in match.plan.moves:
        if key in move.sources:
            why = problem or (f"changed by {move.op}" if move.op else "only its name changes")
            if move.sources == (move.target,) and not move.op:
                why = problem or "it stays as it is"
            fate = "unexplained" if problem else "kept"
            return Explanation(
                **about, spec=where.tensors[key], fate=fate, target=move.target, rule=str(move.rule), why=why
            )
    for gone in match.plan.dropped:
        if gone.source == key:
            spec = where.tensors.get(key)
            return Explanation(
                **about, spec=spec, fate="dropped", target="", rule=str(gone.rule) if gone.rule else "", why=gone.why
            )
    if key in where.tensors or problem:
        return Explanation(**about, spec=where.tensors.get(key), fate="unexplained", target="", rule="", why=problem)
    near = get_close_matches(key, [*where.tensors, *where.others], 3)
    error = UsageError(
        f"{section_label(match.plan.section)} holds no {key}",
        f"Did you mean {' or '.join(map(printable, near))}?" if near else f"See the names: {call('inspect', 'SRC')}",
    )
    with naming_files(found):
        raise error
