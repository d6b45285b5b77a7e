"""timm's networks, built for a detector. The only module that imports timm, and only when a network is built."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any

import torch

from ckptconv.errors import EnvironmentMissingError

_SUPPORTED = "timm==1.0.31"
"""What `pyproject.toml` says in the extra of the same name."""
_OPTIONAL: Mapping[str, Any] = {"global_pool": "", "dynamic_img_size": True, "strict_img_size": False}
"""Arguments that not every class takes: no pooling, and images of any size (in Swin's classes by their older name)."""


_LOADING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Arguments of `create_model` that make it download or unpickle a file of its own."""


_LAYER_SCALES = ("gamma", "gamma_1", "gamma_2", "gamma1", "gamma2", "gamma3")
"""The names of LayerScale's factors in timm's classes."""


def timm() -> Any:
    """The package. Raises EnvironmentMissingError with the command that installs it, or that fixes it."""
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        name = error.name or "timm"
        raise EnvironmentMissingError(
            f"TimmBackbone needs the package {name}", f"pip install '{_SUPPORTED}'" if name == "timm" else _DOCTOR
        ) from error
    except Exception as error:  # of torchvision: a library for another device does not load
        raise EnvironmentMissingError(f"timm cannot be imported here: {error}", _DOCTOR) from error


_DOCTOR = "ckptconv doctor says what is missing and how to install it"


def create(name: str, arguments: Mapping[str, Any], image_size: tuple[int, int] | None, drop_path: float) -> Any:
    """A network without classifier and pooling, with random weights, for images of any size where its class can.

    Raises ValueError for a name that timm does not know, or arguments that the class does not take.
    """
    library = timm()
    if not library.is_model(name):
        near = get_close_matches(name, library.list_models())
        raise ValueError(f"timm {library.__version__} has no {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    optional: dict[str, Any] = {**_OPTIONAL, "drop_path_rate": drop_path}
    optional = {key: value for key, value in optional.items() if key not in arguments}
    for key in _LOADING:
        if key in arguments:
            raise ValueError(f"arguments has {key!r}, with which timm loads weights: name the file in init_cfg instead")
    if image_size is not None:
        arguments = {**arguments, "img_size": image_size}
    while True:
        try:
            model = library.create_model(name, pretrained=False, num_classes=0, **{**optional, **arguments})
            break
        except (TypeError, AssertionError, ValueError) as error:
            refused = _refused(error, optional)
            if refused is None or (refused == "drop_path_rate" and drop_path):
                raise ValueError(f"timm cannot build {name}: {error}") from error
            del optional[refused]
    if "ref_feat_shape" in arguments and arguments["ref_feat_shape"] is None:
        model.rope.ref_feat_shape = None  # `create_model` leaves out what is None
    return model


def _refused(error: Exception, optional: Mapping[str, Any]) -> str | None:
    """The optional argument that an error of timm is about; None if it is about something else."""
    if isinstance(error, TypeError):
        return next((argument for argument in optional if f"'{argument}'" in str(error)), None)
    return "global_pool" if "global_pool" in optional else None


def set_norm_eps(model: torch.nn.Module, eps: float) -> None:
    """Give every layer norm this epsilon."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = eps


def set_rope_periods(model: Any, periods: Sequence[float]) -> None:
    """Replace the periods that timm computes for rotary positions, which no file of timm holds.

    timm computes them again when a network is cast to a smaller type: that computation is replaced, too.
    """
    rope: Any = getattr(model, "rope", None)
    own = getattr(rope, "periods", None)
    if own is None:
        raise ValueError("rope_periods is given, but the network has no rotary positions with periods")
    if own.shape != (len(periods),):
        raise ValueError(f"rope_periods has {len(periods)} numbers, the network takes {len(own)}")
    with torch.no_grad():
        own.copy_(torch.tensor(periods))
    rope._compute_periods = functools.partial(_given_periods, tuple(periods))


def _given_periods(periods: Sequence[float], device: Any = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(periods, device=device, dtype=dtype)


def start_residuals(model: torch.nn.Module) -> None:
    """Let every residual branch start at full strength, where timm starts it at 0 or close to it.

    These are LayerScale's factors, however timm's classes name them, and the weights of norms that end a branch.
    """
    with torch.no_grad():
        for module in model.modules():
            for name, value in module.named_parameters(recurse=False):
                scale = name in _LAYER_SCALES
                if scale or (name == "weight" and value.dim() == 1 and not value.any()):
                    value.fill_(1)


def layers(model: Any) -> tuple[dict[str, int], int]:
    """The layer of each parameter, from the stem (0) on, as timm groups them.

    What timm puts in no group, such as a head, is in the last layer; the second answer is its number.
    """
    if not hasattr(model, "group_matcher"):
        raise ValueError(f"timm groups no layers of its class {type(model).__name__}, which has no group_matcher")
    names = [*model.named_parameters(), ("", None)]
    group = importlib.import_module("timm.models").group_parameters
    numbers: dict[str, int] = group(
        SimpleNamespace(named_parameters=lambda: names), model.group_matcher(coarse=False), reverse=True
    )
    return numbers, numbers.pop("")


def undecayed(model: Any) -> set[str]:
    """The parameters that timm's class excludes from weight decay: it gives names, some with a star."""
    patterns = tuple(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else ()
    names = [name for name, _ in model.named_parameters()]
    return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}


@contextlib.contextmanager
def shadowed(owner: Any, **attributes: Any) -> Iterator[None]:
    """While it lasts, an object has other attributes. A module's parameters and submodules stay what they are."""
    own = vars(owner)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(before)


def shapes_and_used(
    module: torch.nn.Module, image: tuple[int, int, int], run: Callable[..., Any]
) -> tuple[list[torch.Size], set[str]]:
    """The shapes of a network's maps for an image, and the names of the parameters that they depend on.

    Nothing is computed: the tensors have shapes and no values. ``run(module, images)`` gives the maps.
    """
    entries = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    hollow = {name: torch.empty_like(value, device="meta") for name, value in entries.items()}
    for name, _ in module.named_parameters():
        hollow[name].requires_grad_()
    holder = _Runner(module, run)
    state = {f"module.{name}": value for name, value in hollow.items()}
    maps = torch.func.functional_call(holder, state, (torch.empty(1, *image, device="meta"),))
    reached = _leaves(maps)
    return [one.shape for one in maps], {name for name, value in hollow.items() if id(value) in reached}


class _Runner(torch.nn.Module):  # type: ignore[misc]  # torch is not read by mypy here
    def __init__(self, module: torch.nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, images: torch.Tensor) -> Any:
        return self.run(self.module, images)


def _leaves(tensors: Sequence[torch.Tensor]) -> set[int]:
    """The ids of the tensors that these are computed from."""
    waiting: list[Any] = [one.grad_fn for one in tensors]
    seen, leaves = set[Any](), set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        waiting += [after for after, _ in node.next_functions]
    return leaves
