"""What to type about a file: commands, which a test runs, and values for a config. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ckptconv.errors import shell_word
from ckptconv.mmdetection.coco_file import Category

_MANY = 20  # names that are readable in one line

# The original file stays next to the new one, which gets its name when it is complete.
_WRITE = (
    "json.dump(d, open(p + '.new', 'w')); os.path.exists(p + '.old') or os.replace(p, p + '.old'); "
    "os.replace(p + '.new', p)"
)
_CHANGE = "import json, os, sys; p = sys.argv[1]; d = json.load(open(p)); {}; " + _WRITE
_AREAS = (
    "[a.update(area=a['area'] if isinstance(a.get('area'), (int, float)) else a['bbox'][2] * a['bbox'][3], "
    "iscrowd=int(a.get('iscrowd') or 0)) for a in d['annotations']]"
)
_NUMBERS = "[a.update(id=i) for i, a in enumerate(d['annotations'], 1)]"
_NAMES = "import json, sys; print(tuple(c['name'] for c in json.load(open(sys.argv[1]))['categories']))"
_ORDER = (
    "import json, os, sys; o = [c['name'] for c in json.load(open(sys.argv[1]))['categories']]; p = sys.argv[2]; "
    "d = json.load(open(p)); d['categories'].sort(key=lambda c: o.index(c['name'])); " + _WRITE
)


def _python(code: str, *paths: str) -> str:
    return f'python -c "{code}" {" ".join(map(shell_word, paths))}'


def areas(path: str) -> str:
    """Fills in area and iscrowd; the original file stays, as FILE.old."""
    return _python(_CHANGE.format(_AREAS), path)


def numbers(path: str) -> str:
    """Numbers the annotations from 1."""
    return _python(_CHANGE.format(_NUMBERS), path)


def order(path: str, changed: str) -> str:
    """Puts the categories of the second file in the order of the first."""
    return _python(_ORDER, path, changed)


def classes(where: str, path: str, categories: Sequence[Category]) -> str:
    """How to set the classes of a data set to those of a file."""
    if len(categories) > _MANY:
        return f"Set {where}.metainfo = dict(classes=…) to what this prints: {_python(_NAMES, path)}"
    return f"Set {where}.metainfo = dict(classes={tuple(c.name for c in categories)!r})."
