"""The installed MMDetection: configs resolved, detectors built, weights initialised.

Nothing else here imports it, except for `guard` and `loader`, which are parts of a training, and `probe` in its child.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ckptconv.arguments import argument
from ckptconv.errors import CkptconvError, EnvironmentMissingError, UnreadableError, UsageError
from ckptconv.mmdetection.loading.inert_load import inert_loading
from ckptconv.mmdetection.type_names import has_type
from ckptconv.small_file import is_file

_DOCTOR = "See what is missing and how to fix it: ckptconv doctor"
_RUN_IT = "It is Python code: run it to see more."
_NOT_IMPORTED = re.compile(r"Failed to import (\S+)")  # mmengine/utils/misc.py, import_modules_from_strings


def find_config(base: str) -> Path:
    """The file of a config: a path, or ``package::path`` as mmengine writes it, found without mmengine."""
    package, mark, inside = base.partition("::")
    if not mark:
        path = Path(base).resolve()
        if not is_file(path):
            raise UsageError(
                f"there is no config {base}", "Give a file, or one of MMDetection's own: mmdet::FOLDER/FILE"
            )
        return path
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise EnvironmentMissingError(f"{base} cannot be found: {package} is not installed", _DOCTOR)
    home = Path(spec.origin).parent
    for configs in (home / ".mim" / "configs", home.parent / "configs"):  # a wheel, a clone
        if is_file(configs / inside):
            return configs / inside
    known = [
        str(p.relative_to(c)) for c in (home / ".mim" / "configs", home.parent / "configs") for p in c.rglob("*.py")
    ]
    near = get_close_matches(inside, known, 3)
    hint = f"Did you mean {' or '.join(f'{package}::{n}' for n in near)}?" if near else "Check the name."
    raise UsageError(f"{package} has no config {inside}", hint)


def resolve(text: str) -> dict[str, Any]:
    """The values of a config's text and its bases. No custom module is imported."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        path.write_text(text, encoding="utf-8")
        values: dict[str, Any] = read_config(path, shown="the config", imports=False).to_dict()
        return values


def read_config(path: Path, shown: str = "", imports: bool = True) -> Any:
    """The `mmengine.Config` of a file. Raises UsageError, with the cause, for one that is missing or fails.

    A config is Python code and is run, as mmengine always does.
    """
    shown = shown or str(path)
    if not is_file(path):
        raise UsageError(f"there is no config {path}", "Check the path; ckptconv emit-config writes one.")
    with needs_mmdetection():
        from mmengine.config import Config
    try:
        with quiet(), inert_loading(plain=False) if imports else contextlib.nullcontext():
            return Config.fromfile(str(path), import_custom_modules=imports)
    except ModuleNotFoundError as error:
        if error.name == "pkg_resources":
            raise EnvironmentMissingError(
                f"{shown}: mmengine resolves its 'mmdet::' base with pkg_resources, which is missing here",
                f"pip install 'setuptools<82', or emit the config without bases: {argument('style', 'flat')}",
            ) from error
        raise EnvironmentMissingError(f"{shown} needs a package that is missing: {error}", _DOCTOR) from error
    except ImportError as error:  # of its custom_imports; mmengine's own message does not say which
        outer = error.__cause__ or error
        failed = _NOT_IMPORTED.search(str(outer))
        if failed is None:
            _require_mmdet()
            raise UsageError(f"{shown} cannot be read: {error_line(error)}", _RUN_IT) from error
        if not _is_absent(failed[1], outer.__context__):
            raise EnvironmentMissingError(
                f"{shown} imports {failed[1]}, which fails: {error_line(outer.__context__ or outer)}", _DOCTOR
            ) from error
        raise EnvironmentMissingError(
            f"{shown} imports {failed[1]}, which is not found here",
            "For mmpretrain: mim install mmpretrain. For projects.*: start in the folder of a clone of MMDetection.",
        ) from error
    except CkptconvError:
        raise
    except FileNotFoundError as error:  # of a base, or of an mmdet that is incomplete
        _require_mmdet()
        raise UsageError(f"{shown} cannot be read: {error_line(error)}", _RUN_IT) from error
    except (Exception, SystemExit) as error:  # the code in a config may raise anything
        raise UsageError(f"{shown} cannot be read: {error_line(error)}", _RUN_IT) from error


def _require_mmdet() -> None:
    """Raises EnvironmentMissingError where mmdet fails: onedl-mmengine reads its bases without it."""
    with needs_mmdetection():
        importlib.import_module("mmdet")


def _is_absent(module: str, why: BaseException | None) -> bool:
    """Whether a module's import failed because it, or a package around it, does not exist."""
    return why is None or (isinstance(why, ModuleNotFoundError) and f"{module}.".startswith(f"{why.name}."))


def build(config: Any, shown: str) -> Any:
    """The detector a config describes, as MMDetection's runner builds it, with random weights."""
    with needs_mmdetection():
        import mmdet.models  # noqa: F401 (registers)
        from mmdet.registry import MODELS
        from mmengine.registry import init_default_scope
    model = config.get("model")
    if not isinstance(model, Mapping) or "type" not in model:
        raise UsageError(f"{shown} has no model", "Give the config of a detector, not one of its base files.")
    model, preprocessor = dict(model), config.get("data_preprocessor")
    if preprocessor is not None:
        model.setdefault("data_preprocessor", preprocessor)  # as `Runner.__init__` of mmengine/runner/runner.py, 0.10.7
    with inert_loading(), quiet():
        init_default_scope(config.get("default_scope") or "mmdet")
        try:
            return MODELS.build(model)
        except Exception as error:
            own = _missing(error)
            if own is not None:
                raise EnvironmentMissingError(f"{shown}: its model cannot be built: {own.message}", own.hint) from error
            raise UsageError(f"{shown}: its model cannot be built: {error_line(error)}", _fix(config, error)) from error


def _missing(error: BaseException | None) -> EnvironmentMissingError | None:
    """What a class of ours says is missing; mmengine raises each error again, around it another text."""
    found = None
    while error is not None:
        found, error = error if isinstance(error, EnvironmentMissingError) else found, error.__context__
    return found


_UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_UNKNOWN = re.compile(r"KeyError: ['\"](\S+) is not in the")
_CLASS = re.compile(r"class `(\w+)` in")


def _fix(config: Any, error: Exception) -> str:
    """What to change in a config whose model cannot be built."""
    from mmdet.registry import MODELS

    text = f"{type(error).__name__}: {error}"
    if unexpected := _UNEXPECTED.search(text):
        kind, argument = unexpected.groups()
        paths = [path for path, node in _nodes(config.get("model"), "model") if _is(node, kind, argument)]
        if paths:
            return f"If {argument!r} comes from a base config, for another class: {paths[0]}: _delete_=True"
    if unknown := _UNKNOWN.search(text):
        near = get_close_matches(unknown[1], list(MODELS.module_dict), 1)
        return f"Did you mean {near[0]}?" if near else "Name the file that defines it in the config's custom_imports."
    built = _CLASS.search(text)
    kind = built[1] if built else str(config.model["type"]).rpartition(".")[2]
    return f"See its arguments: python -c \"import mmdet.models, mmdet.registry as r; help(r.MODELS.get('{kind}'))\""


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        yield path, node
        for name, child in node.items():
            yield from _nodes(child, f"{path}.{name}")


def _is(node: Mapping[str, Any], kind: str, argument: str) -> bool:
    return has_type(node, kind) and argument in node


def load_over(model: Any, name: str, read: Callable[[Any], None]) -> str:
    """Load a checkpoint over a detector as ``load_from`` does. Returns the error that prevents it, or ''.

    ``read`` is called with what was read, before it is loaded.

    Source: `Runner.load_checkpoint` of mmengine/runner/runner.py, 0.10.7.
    """
    from mmengine.runner.checkpoint import _load_checkpoint, _load_checkpoint_to_model

    try:
        with inert_loading(), quiet():
            checkpoint = _load_checkpoint(name, map_location="cpu")
            read(checkpoint)
            _load_checkpoint_to_model(model, checkpoint, strict=False, revise_keys=[(r"^module.", "")])
    except UnreadableError:
        raise
    except Exception as error:  # the file may hold anything
        return error_line(error)
    return ""


def constructor_arguments(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str | None], frozenset[str]]:
    """A function that gives the names of the arguments that the class of a dict takes, in a scope of the registries.

    It gives none for a class that is not found. The config's ``custom_imports`` are imported for it.
    """
    with needs_mmdetection():
        import mmdet.models  # noqa: F401 (registers)
        from mmdet.registry import MODELS
        from mmengine.registry import DefaultScope
        from mmengine.utils import import_modules_from_strings
    custom = config.get("custom_imports") or {}
    with quiet(), contextlib.suppress(Exception):
        import_modules_from_strings(custom.get("imports") or [], allow_failed_imports=True)

    def of_class(node: Mapping[str, Any], scope: str | None) -> frozenset[str]:
        kind = node.get("type")
        with quiet(), contextlib.suppress(Exception), DefaultScope.overwrite_default_scope(scope or "mmdet"):
            with MODELS.switch_scope_and_registry(None) as registry:
                known: Any = registry.get(kind) if isinstance(kind, str) else kind
            return frozenset(_parameters(known if inspect.isclass(known) else known.build()))  # a LazyObject
        return frozenset()

    return of_class


def _parameters(kind: type) -> Iterator[str]:
    """Those of the constructor, and of its bases' as long as it passes on others."""
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())
        yield from (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return


def initialise(model: Any) -> tuple[Exception | None, Mapping[str, str]]:
    """Run the detector's own initialisation, as a training does first.

    Returns the error that ended it, if one did, and what mmengine noted of how each parameter got its value.
    """
    infos: dict[str, str] = {}

    def note() -> None:
        notes = model._params_init_info
        infos.update((name, notes[value].get("init_info", "")) for name, value in model.named_parameters())

    if not hasattr(model, "init_weights"):
        return None, infos
    model._dump_init_info = note  # instead of hundreds of lines in a log
    try:
        with inert_loading(), quiet():
            model.init_weights()
    except UnreadableError:
        raise
    except Exception as error:  # a detector's own code may raise anything
        return error, infos
    finally:
        del model._dump_init_info
    return None, infos


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what mmengine logs, prints and warns of: the caller prints the answer."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null, contextlib.redirect_stdout(null):  # noqa: PTH123
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def needs_mmdetection() -> Iterator[None]:
    try:
        with quiet():  # onedl-mmcv without its ops logs a warning, on stdout
            yield
    except Exception as error:  # an assertion about versions, a library that does not load, …
        raise EnvironmentMissingError(f"MMDetection cannot be imported here: {error_line(error)}", _DOCTOR) from error


def error_line(error: BaseException) -> str:
    """An error in one line: its class, and the last line of its message, which says what it is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
