"""What is known of one module and its file, and what a finding is. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptconv.mmdetection.check.measured_input import ModelInput
from ckptconv.mmdetection.hints import convert_command
from ckptconv.spec import StateSpec
from ckptconv.text import fold, some

if TYPE_CHECKING:
    from ckptconv.methods.interface import Method, Pixels
    from ckptconv.mmdetection.check.compare import Comparison
    from ckptconv.mmdetection.check.init_cfg import LoadedBy


@dataclass(frozen=True)
class Finding:
    """One sentence, and what to type or change: any one of ``fixes`` is enough.

    ``certain``: whether the detector is proved to start otherwise; if not, it is not proved how it starts.
    """

    text: str
    fixes: tuple[str, ...] = ()
    certain: bool = True


@dataclass(frozen=True)
class ModuleEvidence:
    """All that is known of one module and its file."""

    config_path: str
    """Where the config says what the module is: 'model.backbone'."""
    config_node: Mapping[str, Any]
    """What the config says there."""
    class_name: str
    """The module's class."""
    detector: str
    """The class of the detector."""
    checkpoint: str
    """The file, without anything secret."""
    prefix: str
    """What is taken off the file's names."""
    loaded_by: LoadedBy
    """What loads the file."""
    module_specs: StateSpec
    """The module's entries."""
    file_specs: StateSpec
    """The file's tensors where mmengine looks for them."""
    other_sections: tuple[str, ...]
    """Other sections of the file that hold tensors."""
    comparison: Comparison
    """The one with the other."""
    method: Method | None
    """What explains the file."""
    is_converted: bool
    """Whether ckptconv wrote the file."""
    pixels: Pixels | None
    """The images that it was trained on."""
    init_error: str
    """The error of the initialisation, or ''."""
    refused: tuple[str, ...]
    """What the file holds besides tensors, if torch refused it for that."""
    loader_fix: tuple[str, ...]
    """The line that lets our loader read the file, if it can."""
    own_loader: bool
    """Whether a class of MMDetection loads the file by code of its own, which may rename."""
    convert_weights: bool | None
    """That class's setting, if the file would fit with the other one."""
    init_info: Mapping[str, str]
    """What mmengine noted of each parameter's initialisation."""
    changed_by: Mapping[str, str]
    """The hook that changed an entry after it was loaded, '' for the detector's ``train()``."""
    train_overrides: tuple[str, ...]
    """The user's classes that have a ``train()``."""
    load_from: str
    """The config's, or ''."""
    random: bool
    """Whether what is missing starts from random values."""
    model_input: ModelInput
    """What the network gets of an image."""
    preprocessor_path: str
    """Where the config says what the preprocessor is."""
    style: str
    """Where a ResNet's blocks have their strides: 'pytorch' or 'caffe'."""
    norm_eval: bool
    """Whether batch norm keeps its statistics."""
    heads_built: int | None
    """The attention heads of the module, None if nothing tells."""
    heads_said: int | None
    """Those that the file says, None if it says none."""
    heads_from: str
    """How the file knows them, or ''."""

    @property
    def trained_as(self) -> str:
        """What was trained, in words: the method's name if it is known."""
        return self.method.name if self.method else "the checkpoint"

    def init_cfg_line(self, checkpoint: str, prefix: str = "") -> str:
        """The line of a config that initialises the module from a file."""
        tail = f", prefix={prefix!r}" if prefix else ""
        return f"{self.config_path}.init_cfg=dict(type='Pretrained', checkpoint={checkpoint!r}{tail})"

    def convert_fix(self) -> str:
        """The command that converts the file, and the line that takes what it writes."""
        command, target = convert_command(self.checkpoint, self.method)
        return f"{command}, then {self.init_cfg_line(target)}"


def tensors(names: Collection[str]) -> str:
    """How many there are: '1 tensor', '3 tensors'."""
    return f"{len(names)} tensor{'s' * (len(names) != 1)}"


def few(names: Collection[str]) -> str:
    """The first of them, numbers folded."""
    return some(fold(names), 3)
