"""timm's networks as backbones of MMDetection's detectors. Knows mmengine, and what all classes of timm have in common.

What differs between these classes is found by asking: which maps a network gives, which of its parameters they depend
on, and whether it takes images of another size, is computed with tensors that have shapes and no values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch.nn.functional import pad

from ckptconv.mmdetection.modules import fixed_size, positions, shifted_windows, timm_network, windows

_FINEST = 4
"""The stride of the finest map that counts as a stage: the map of a ResNet's stem has 2."""


@MODELS.register_module()
class TimmBackbone(BaseModule):  # type: ignore[misc]  # mmengine has no annotations
    """A network of timm, which gives feature maps.

    Its state dict has timm's own names, those of ``timm.create_model(name, num_classes=0, **arguments)``: a checkpoint
    for timm is loaded by ``init_cfg=dict(type='Pretrained', checkpoint=…)``. Nothing is ever downloaded.

    A plain network, such as a ViT, gives one map, that of its last block; a network of stages gives one a stage, from
    stride 4 on. All are [B, C, H, W].

    Images are padded with zeros at the bottom and at the right to whole patches, as detectors pad images to batches:
    these patches are attended to as any other. Nothing is masked and the maps are not cropped. Convolutional networks
    take every size, and their images are not padded. Windows of a Swin follow the image, see `shifted_windows`.

    A network that takes one size only (a BEiT, a Hiera) needs ``image_size``. Smaller images are padded to it, and the
    maps are cropped to what the image covers; larger ones are refused. Its tables of positions are resized once, when
    a file is loaded, and the log says so.

    Parameters that the maps do not depend on (the norm if ``norm=False``, later blocks, a head's norm) stay in the
    state dict, so that a file is loaded and compared whole, and need no gradient, so that DDP looks for none.

    Args:
        name: of a model that timm has.
        arguments: further arguments of ``timm.create_model``.
        out_indices: the blocks, or the stages, whose maps it gives. None: the last block, or all stages.
        norm: whether the maps of a plain network go through its last norm. Networks of stages have none.
        norm_eps: the epsilon of every layer norm. None: timm's.
        position_resampling: how the table of positions is resized for images of another size: ``mode``, ``antialias``,
            ``align_corners`` and ``offset``, see `positions`. None: timm's way, bicubic with antialias.
        rope_periods: the periods of rotary positions. None: those that timm computes.
        image_size: height and width of the images, for a network that takes one size only.
        drop_path_rate: of stochastic depth, in the last block; it grows from 0 in the first.
        with_cp: whether blocks are computed again in the backward pass, which saves memory.
        frozen: ``"all"``, or how many blocks, with the embeddings before them, are not trained: no gradients, and
            evaluation mode. 0 freezes the embeddings alone. None: nothing is frozen.
        window: the side of the windows, in patches, that attention is restricted to, for speed; 0 for no windows.
            For classes VisionTransformer and Eva. See `windows`.
        global_blocks: the blocks whose attention is not restricted. None: four, spread evenly.
        zero_init_residual: whether residual branches start at 0, or close to it, where timm starts them so: with a
            small LayerScale, or with a norm of zeros. A network that starts from random numbers then learns slowly.
        init_cfg: what mmengine initialises it with. None: random numbers, as timm draws them.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        out_indices: Sequence[int] | None = None,
        norm: bool = True,
        norm_eps: float | None = None,
        position_resampling: positions.Resampling | None = None,
        rope_periods: Sequence[float] | None = None,
        image_size: tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        frozen: Literal["all"] | int | None = None,
        window: int = 0,
        global_blocks: Sequence[int] | None = None,
        zero_init_residual: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.timm_name = name
        self._frozen: Literal["all"] | int | None = None
        self._frozen_modules: tuple[str, ...] = ()
        size = None if image_size is None else (int(image_size[0]), int(image_size[1]))
        model = timm_network.create(name, arguments or {}, size, drop_path_rate)
        self._adopt(model)
        if not zero_init_residual:
            timm_network.start_residuals(model)
        shifted_windows.follow_images(model)
        if norm_eps is not None:
            timm_network.set_norm_eps(model, norm_eps)
        if rope_periods is not None:
            timm_network.set_rope_periods(model, rope_periods)
        self._choose_maps(out_indices, norm)
        self._set_windows(window, global_blocks)
        self.position_resampling = None if position_resampling is None else positions.complete(position_resampling)
        if self.position_resampling is not None and getattr(model, "pos_embed", None) is None:
            raise ValueError(f"position_resampling is given, but {name} has no table of positions")
        self._find_sizes(arguments or {}, size)
        self._freeze(frozen)
        if with_cp:
            model.set_grad_checkpointing()

    def _adopt(self, model: Any) -> None:
        """Hold timm's model without being around it: its parameters, buffers and submodules are this module's own.

        The dicts in which PyTorch keeps them are shared, so that both always have the same ones. Copies and
        pickles keep that, for both objects are in one graph. So no part of a network may have a name of ours.
        """
        names = [*model._parameters, *model._buffers, *model._modules]
        taken = [name for name in names if name in self.__dict__ or hasattr(type(self), name)]
        if taken:
            raise ValueError(f"{self.timm_name} has a part named {taken[0]}, which TimmBackbone itself has")
        self.__dict__["model"] = model  # not as a submodule
        for registry in ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"):
            self.__dict__[registry] = vars(model)[registry]
        for child in self.children():
            if hasattr(child, "init_weights"):
                child.is_init = True  # mmengine calls it otherwise, and timm has done so

    def _choose_maps(self, out_indices: Sequence[int] | None, norm: bool) -> None:
        """Decide which maps it gives: their strides and channels, and their numbers in timm."""
        if not hasattr(self.model, "forward_intermediates"):
            raise ValueError(f"{self.timm_name} gives no feature maps: its class in timm has no forward_intermediates")
        info = list(self.model.feature_info)
        self.plain = len({one["reduction"] for one in info}) == 1
        self._norms = norm and self.plain
        known = [i for i, one in enumerate(info) if self.plain or one["reduction"] >= _FINEST]
        last = len(known) - 1
        out_indices = ([last] if self.plain else range(last + 1)) if out_indices is None else out_indices
        wrong = [i for i in out_indices if i not in range(last + 1)]
        what = "blocks" if self.plain else "stages"
        if wrong:
            raise ValueError(f"out_indices has {wrong[0]}, and {self.timm_name} has the {what} 0 to {last}")
        if not out_indices or list(out_indices) != sorted(set(out_indices)):
            raise ValueError(f"out_indices names {what} in their order, each once: not {tuple(out_indices)}")
        self.out_indices = tuple(out_indices)
        self._taken = [known[i] for i in self.out_indices]
        self.strides = tuple(int(info[i]["reduction"]) for i in self._taken)
        self.channels = tuple(int(info[i]["num_chs"]) for i in self._taken)

    def _set_windows(self, window: int, global_blocks: Sequence[int] | None) -> None:
        self._window, self._global_blocks = window, frozenset[int]()
        if not window:
            if global_blocks is not None:
                raise ValueError("global_blocks is given without window")
            return
        blocks = getattr(self.model, "blocks", ())
        classes = {kind.__name__ for kind in type(self.model).__mro__}
        if not classes & {"VisionTransformer", "Eva"} or not all(hasattr(block, "attn") for block in blocks):
            raise ValueError(
                f"window works for timm's VisionTransformer and Eva, and {self.timm_name} is another class"
            )
        chosen = windows.spread_evenly(len(blocks)) if global_blocks is None else tuple(global_blocks)
        wrong = [i for i in chosen if i not in range(len(blocks))]
        if wrong:
            raise ValueError(
                f"global_blocks has {wrong[0]}, and {self.timm_name} has the blocks 0 to {len(blocks) - 1}"
            )
        self._global_blocks = frozenset(chosen)

    def _find_sizes(self, arguments: Mapping[str, Any], image_size: tuple[int, int] | None) -> None:
        """Find out which images it takes, and which parameters need no gradient."""
        trained_with = _pair(arguments.get("img_size") or self.model.pretrained_cfg["input_size"][1:])
        channels: Any = arguments.get("in_chans") or getattr(self.model, "in_chans", 3)
        patch: Any = getattr(self.model, "patch_embed", None)
        known: Any = getattr(patch, "patch_size", None) if self.plain or hasattr(patch, "strict_img_size") else 1
        self._multiple = _pair(known or self.strides[0])
        self.image_size: tuple[int, int] | None = None
        size = image_size or _whole(trained_with, self._multiple)
        self.eval()
        try:
            shapes, used = timm_network.shapes_and_used(self, (channels, *size), TimmBackbone._maps)
        except Exception as error:  # timm's classes refuse in many ways
            raise ValueError(f"{self.timm_name} gives no maps of images of {size[0]}x{size[1]}: {error}") from error
        if not self._takes(channels, size, self._multiple):
            coarsest = _pair(max(self.strides))
            if self._takes(channels, _whole(size, coarsest), coarsest):
                self._multiple = coarsest
            else:
                self.image_size = size
        self.train()
        self.channels = tuple(shape[1] for shape in shapes)
        if self.image_size is None:
            if image_size is not None:
                raise ValueError(f"{self.timm_name} takes images of any size: leave out image_size")
        else:
            finest = _pair(min(one["reduction"] for one in self.model.feature_info))
            self.grid, self.grid_of_file = _grid(size, finest), _grid(trained_with, finest)
            if math.prod(self.grid) == math.prod(self.grid_of_file) and self.grid != self.grid_of_file:
                raise ValueError(
                    f"images of {size[0]}x{size[1]} have as many patches as those of {trained_with[0]}x"
                    f"{trained_with[1]}, for which the file is: nothing tells their tables apart; "
                    "give another image_size"
                )
        self._used = frozenset(used)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in used)

    def _takes(self, channels: int, size: tuple[int, int], more: tuple[int, int]) -> bool:
        """Whether it takes images that are larger by so much."""
        try:
            larger = size[0] + more[0], size[1] + more[1]
            timm_network.shapes_and_used(self, (channels, *larger), TimmBackbone._maps)
        except Exception:  # timm's classes refuse in many ways
            return False
        return True

    def _freeze(self, frozen: Literal["all"] | int | None) -> None:
        if frozen is None:
            return
        names = {name for name, _ in self.named_parameters()}
        if frozen != "all":
            numbers, after = self.layer_numbers()
            if isinstance(frozen, bool) or not isinstance(frozen, int) or not 0 <= frozen < after:
                raise ValueError(f"frozen is 'all' or 0 to {after - 1} blocks of {self.timm_name}: not {frozen!r}")
            names = {name for name, number in numbers.items() if number <= frozen}
        for name, parameter in self.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        self._frozen, self._frozen_modules = frozen, tuple(_whole_modules(self, names))
        self.train()

    @property
    def untrained(self) -> frozenset[str]:
        """The parameters that the maps do not depend on, and those of a network that is frozen whole."""
        names = frozenset(name for name, _ in self.named_parameters())
        return names if self._frozen == "all" else names - self._used

    def layer_numbers(self) -> tuple[dict[str, int], int]:
        """The layer of each parameter: 0 for the embeddings, then the blocks; and the number of what comes after them.

        Blocks that no map depends on, and what timm puts in no layer, come after them, too. timm puts the last norm
        into the last block: a layer is one of these blocks if the maps depend on most of it.
        """
        numbers, head = timm_network.layers(self.model)
        used, whole = Counter(numbers[name] for name in self._used), Counter(numbers.values())
        after = 1 + max(number for number in used if number < head and 2 * used[number] > whole[number])
        return {name: min(number, after) for name, number in numbers.items()}, after

    def train(self, mode: bool = True) -> TimmBackbone:
        """As `torch.nn.Module.train`; what is frozen stays in evaluation mode."""
        super().train(mode and self._frozen != "all")
        self.model.training = self.training
        for name in self._frozen_modules:
            self.get_submodule(name).eval()
        return self

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The feature maps of images [B, C, H, W], from fine to coarse, or from an early block to a late one."""
        height, width = images.shape[-2:]
        if self.image_size is None:
            return tuple(self._maps(_padded(images, _whole((height, width), self._multiple))))
        if height > self.image_size[0] or width > self.image_size[1]:
            most = f"{self.image_size[0]}x{self.image_size[1]}"
            raise ValueError(
                f"an image of {height}x{width} pixels, and {self.timm_name} was built for at most {most}: "
                "resize images to that, or give the TimmBackbone another image_size=(height, width)"
            )
        maps = self._maps(_padded(images, self.image_size))
        sizes = [(-(-height // stride), -(-width // stride)) for stride in self.strides]
        return tuple(one[..., : size[0], : size[1]] for one, size in zip(maps, sizes, strict=True))

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps of images of a size that the network takes."""
        model, grid = self.model, _grid(images.shape[-2:], self._multiple)
        with ExitStack() as stack:
            if self.position_resampling is not None and getattr(model, "dynamic_img_size", False):
                table, old = model.pos_embed, model.patch_embed.grid_size
                prefix = table.shape[1] - math.prod(old)
                table = positions.resampled(table, tuple(old), grid, prefix, self.position_resampling)
                stack.enter_context(timm_network.shadowed(model, pos_embed=table))
                stack.enter_context(timm_network.shadowed(model.patch_embed, grid_size=grid))
            if self._window:
                blocks = [
                    block
                    if i in self._global_blocks
                    else windows.WindowedBlock(block, grid, self._window, model.num_prefix_tokens)
                    for i, block in enumerate(model.blocks)
                ]
                stack.enter_context(timm_network.shadowed(model, blocks=blocks))
            options = {"norm": True} if self._norms else {}
            maps: list[torch.Tensor] = model.forward_intermediates(
                images, indices=self._taken, stop_early=True, intermediates_only=True, **options
            )
        return maps

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """As PyTorch's, which loads and reports; tables for another size are resized first."""
        if self.image_size is not None:
            for name, value in fixed_size.resized(self, state_dict, prefix):
                old, new = (" x ".join(map(str, one.shape)) for one in (state_dict[prefix + name], value))
                print_log(
                    f"TimmBackbone resizes {name} of the file once, for images of {self.image_size[0]}x"
                    f"{self.image_size[1]}: {old} to {new}",
                    logger="current",
                )
                state_dict[prefix + name] = value
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _pair(value: Any) -> tuple[int, int]:
    """A number, or two, as height and width."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _grid(size: Sequence[int], patch: tuple[int, int]) -> tuple[int, int]:
    """How many whole patches an image has."""
    return size[0] // patch[0], size[1] // patch[1]


def _whole(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """The size in whole patches: the image's, padded."""
    return size[0] + -size[0] % patch[0], size[1] + -size[1] % patch[1]


def _padded(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Images with zeros at the bottom and at the right."""
    down, right = size[0] - images.shape[-2], size[1] - images.shape[-1]
    return pad(images, (0, right, 0, down)) if down or right else images


def _whole_modules(model: torch.nn.Module, names: set[str], path: str = "") -> Iterator[str]:
    """The outermost submodules with parameters, all of which are among these."""
    for name, child in model.named_children():
        inside = f"{path}{name}"
        parameters = [f"{inside}.{one}" for one, _ in child.named_parameters()]
        if parameters and names.issuperset(parameters):
            yield inside
        elif parameters:
            yield from _whole_modules(child, names, f"{inside}.")
