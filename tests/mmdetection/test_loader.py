"""The loader inside mmengine: what it reads is what ``torch.load`` reads, and nothing in a file is run.

The oracles are torch, safetensors, and mmengine's own Runner.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import os
import pickle
import subprocess
import sys
import types
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmengine.runner
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import load_file

import ckptconv
from ckptconv.errors import UnreadableError
from ckptconv.formats.records import CallRecord
from tests.formats.test_torch_files import raw, replace_in_pickle, tensors, views, zip_and_legacy
from tests.formats.test_unpickler import CONTAINERS, Shell
from tests.support import broken, forked, hollow, raw_files
from tests.support.broken import text, zipped
from tests.support.stack import FORKS

OWN = dict(CheckpointLoader._schemes)

from ckptconv.mmdetection import loader  # noqa: E402 (importing it registers it; what was there before is kept above)

OWN.pop(loader.LOCAL, None)

pytestmark = [
    pytest.mark.mmdet,
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support"),
]

ROOT = Path(__file__).parents[2]
SUFFIXES = (".pth", ".safetensors")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The loader is on, as after its import, unless a test asks for `unregistered`."""
    before = CheckpointLoader._schemes
    CheckpointLoader._schemes = dict(OWN)
    CheckpointLoader.register_scheme(loader.LOCAL, loader.load)
    yield
    CheckpointLoader._schemes = before


@pytest.fixture
def unregistered(registered: None) -> None:
    CheckpointLoader._schemes = dict(OWN)


def unpickled(path: Path | str, **options: Any) -> Any:
    """The oracle. It runs what a file says."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mmengine")
        return torch.load(path, weights_only=False, **options)


# Which files come to it -------------------------------------------------------------------------------------------

OURS = ("x.pth", "x.safetensors", "/a/x.pth", "./x", "~/x.pth", "C:\\a\\x.pth", "http.pth", "s3/x.pth", "a:b/x", "a//b")
THEIRS = (
    "https://download.openmmlab.com/x.pth",
    "http://127.0.0.1:8000/x.safetensors",
    "torchvision://resnet50",
    "open-mmlab://x",
    "openmmlab://x",
    "open-mmlab://https://x",
    "mmcls://x",
    "modelzoo://x",
    "pavi://x",
    "s3://bucket/x.pth",
    "petrel://bucket/x.pth",
    "cluster:s3://bucket/x.safetensors",
    "open-mmlab:s3://bucket/x.pth",
)


@pytest.mark.parametrize("path", OURS)
def test_a_local_file_comes_to_it(path: str) -> None:
    assert CheckpointLoader._get_checkpoint_loader(path) is loader.load


@pytest.mark.parametrize("path", THEIRS)
def test_a_file_elsewhere_does_not(path: str) -> None:
    chosen = CheckpointLoader._get_checkpoint_loader(path)
    CheckpointLoader._schemes = OWN
    assert chosen is CheckpointLoader._get_checkpoint_loader(path)
    assert chosen.__module__ == "mmengine.runner.checkpoint"


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors", "~/missing.pth", "", "."])
def test_a_missing_file_is_missed_as_mmengine_misses_it(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    said = []
    for schemes in (CheckpointLoader._schemes, OWN):
        CheckpointLoader._schemes = schemes
        with pytest.raises(FileNotFoundError) as caught:
            CheckpointLoader.load_checkpoint(name)
        said.append(str(caught.value).replace(str(tmp_path), "~"))
    assert said == [f"{name} can not be found."] * 2


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth")
    assert CheckpointLoader.load_checkpoint("~/x.pth")["w"].tolist() == [1, 1]


def test_mmengine_says_who_reads_the_file(tmp_path: Path, capsys) -> None:
    """mmengine prints ``loader.__name__[10:]``, for its own are all called ``load_from_…``."""
    torch.save({}, tmp_path / "x.pth")
    CheckpointLoader.load_checkpoint(str(tmp_path / "x.pth"), logger=None)
    assert capsys.readouterr().out == f"Loads checkpoint by ckptconv backend from path: {tmp_path / 'x.pth'}\n"


# A converted backbone in mmengine's own hands ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("converted")
    source = hollow.fill("lightly_moco_resnet18_sequential", folder / "source.ckpt")
    files = {suffix: folder / f"r18{suffix}" for suffix in SUFFIXES}
    for path in files.values():
        ckptconv.convert(source, path)
    return files


def _older_torch_load() -> Callable[..., Any]:
    """``torch.load`` without the lines that give a name in '.safetensors' to that library, as it was before they came.

    What is left is torch's real path: it takes the file for a zip archive, then for a pickle.
    """
    code = inspect.getsource(torch.serialization.load)
    start = code.index(
        "    if _is_path(f):\n        fspath = os.fspath(f)\n        if fspath.endswith('.safetensors'".replace(
            "'", '"'
        )
    )
    end = code.index('    with _open_file_like(f, "rb") as opened_file:', start)
    older = code[:start] + code[end:]
    assert "safetensors" in code
    assert "load_file" not in older
    space = dict(vars(torch.serialization))
    exec(compile(older, torch.serialization.__file__, "exec", dont_inherit=True), space)
    found: Callable[..., Any] = space["load"]
    return found


@pytest.fixture
def older_torch(monkeypatch) -> None:
    if "load_file" in inspect.getsource(torch.serialization.load):
        monkeypatch.setattr(torch, "load", _older_torch_load())


def by_load_checkpoint(path: Path) -> torch.nn.Module:
    net = MODELS.build({"type": "mmdet.ResNet", "depth": 18})
    load_checkpoint(net, str(path), strict=True)
    return net


def by_init_cfg(path: Path) -> torch.nn.Module:
    init_cfg = {"type": "Pretrained", "checkpoint": str(path)}
    net = MODELS.build({"type": "mmdet.ResNet", "depth": 18, "init_cfg": init_cfg})
    net.init_weights()
    return net


ways = pytest.mark.parametrize("way", [by_load_checkpoint, by_init_cfg])


def assert_loaded(net: torch.nn.Module, converted: dict[str, Path]) -> None:
    expected = load_file(converted[".safetensors"])
    state = net.state_dict()
    assert set(state) == set(expected)
    assert len(state) == 120
    assert all(raw(state[name]) == raw(value) for name, value in expected.items())


@ways
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_with_the_loader_nothing_of_torch_reads_the_file(way, suffix, converted, monkeypatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    assert_loaded(way(converted[suffix]), converted)


@ways
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.skipif("load_file" not in inspect.getsource(torch.serialization.load), reason="this torch is an older one")
def test_without_it_a_torch_that_knows_safetensors_reads_both(way, suffix, converted, unregistered) -> None:
    assert_loaded(way(converted[suffix]), converted)


@ways
def test_without_it_an_older_torch_reads_its_own_format(way, converted, unregistered, older_torch) -> None:
    assert_loaded(way(converted[".pth"]), converted)


@ways
def test_without_it_an_older_torch_fails_on_safetensors(way, converted, unregistered, older_torch) -> None:
    with pytest.raises(pickle.UnpicklingError):
        way(converted[".safetensors"])


@ways
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_with_it_an_older_torch_reads_both(way, suffix, converted, older_torch) -> None:
    assert_loaded(way(converted[suffix]), converted)


@pytest.mark.parametrize("depth", [18])
def test_a_prefix_works_as_without_it(depth: int, tmp_path: Path) -> None:
    path = raw_files.moco(tmp_path / "moco.pth.tar", depth)
    found = []
    for schemes in (CheckpointLoader._schemes, OWN):
        CheckpointLoader._schemes = schemes
        init_cfg = {"type": "Pretrained", "checkpoint": str(path), "prefix": "module.encoder_q."}
        net = MODELS.build({"type": "mmdet.ResNet", "depth": depth, "init_cfg": init_cfg})
        net.init_weights()
        found.append({name: raw(value) for name, value in net.state_dict().items()})
    assert found[0] == found[1]
    assert found[0] == {name: raw(value) for name, value in raw_files.backbone_state(depth).items()}


ONE_LINE = "custom_imports = dict(imports=['ckptconv.mmdetection.loader'], allow_failed_imports=False)"


def test_one_line_of_a_config_turns_it_on(converted: dict[str, Path], tmp_path: Path) -> None:
    """In a process of its own, with an older torch: only the loader can have read the file."""
    backbone = "dict(type='mmdet.ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint='r18.safetensors'))"
    (tmp_path / "config.py").write_text(f"{ONE_LINE}\nbackbone = {backbone}\n")
    (tmp_path / "r18.safetensors").symlink_to(converted[".safetensors"])
    (tmp_path / "main.py").write_text(
        """
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

own = set(CheckpointLoader._schemes)
config = Config.fromfile("config.py")
print(*(set(CheckpointLoader._schemes) - own))

from mmdet.registry import MODELS
from mmdet.models.backbones import ResNet
from tests.mmdetection.test_loader import _older_torch_load

torch.load = _older_torch_load()
net = MODELS.build(config.backbone)
net.init_weights()
torch.save(net.state_dict(), "loaded.pth")
"""
    )
    done = run("main.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[0] == loader.LOCAL
    state = torch.load(tmp_path / "loaded.pth")
    expected = load_file(converted[".safetensors"])
    assert {name: raw(value) for name, value in state.items()} == {n: raw(v) for n, v in expected.items()}


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return forked.run([sys.executable, script], cwd=folder, env=env)


# What it makes of a file is what torch makes of it ----------------------------------------------------------------


def described(value: Any) -> Any:
    """A value as plain tuples that are equal if, and only if, everything about it is that the loader promises to keep.

    Not kept are: an OrderedDict and a `torch.Size` are a dict and a tuple; a Parameter is a tensor; memory that tensors
    share; an array's order of axes in memory and of bytes in a number. NaN is NaN by its bits.
    """
    if isinstance(value, torch.Tensor):
        return "tensor", value.dtype, tuple(value.shape), raw(value), value.device.type
    if isinstance(value, np.ndarray | np.generic):
        native = value.dtype.newbyteorder("=")
        kind = np.ndarray if isinstance(value, np.ndarray) else type(value)
        return kind, native, value.shape, np.asarray(value).astype(native).tobytes()
    if isinstance(value, Counter):
        return Counter, described(dict(value))
    if isinstance(value, dict):
        return dict, tuple((described(key), described(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return list if isinstance(value, list) else tuple, tuple(described(item) for item in value)
    if isinstance(value, HistoryBuffer):
        return HistoryBuffer, value.max_length, described(list(value.data))
    if isinstance(value, types.FunctionType):
        return value
    assert isinstance(value, int | float | str | bytes | None), value
    return type(value), repr(value)


NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16", ">f4", ">i8", ">c16")


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    kind = np.dtype(draw(st.sampled_from(NUMBERS)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    data = draw(st.binary(min_size=(size := math.prod(shape) * kind.itemsize), max_size=size))
    data = bytes(b & 1 for b in data) if kind.kind == "b" else data
    array = np.frombuffer(data, kind).reshape(shape)
    return draw(st.sampled_from([array, np.asfortranarray(array), array.T, array[..., ::2] if shape else array]))


scalars = arrays().filter(lambda a: a.size > 0).map(lambda a: a.reshape(-1)[0])
plain = st.none() | st.booleans() | st.integers(-(1 << 200), 1 << 200) | st.floats() | st.text() | st.binary()
keys = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 63)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.tuples(st.integers(0, 9), st.text(max_size=2))
)
counters = st.dictionaries(st.integers(0, 99), st.integers(1, 9), max_size=3).map(Counter)
buffers = st.lists(st.floats(), max_size=4).map(lambda run: HistoryBuffer(run, [1] * len(run), 7))


@st.composite
def trees(draw: st.DrawFn) -> Any:
    pool = draw(st.lists(tensors(), min_size=1, max_size=2))
    tensor = (views(st.sampled_from(pool)) | views(tensors())).map(
        torch.Tensor.detach
    )  # a float8 with grad fails torch
    leaves = plain | arrays() | scalars | counters | buffers | tensor

    def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        table = st.dictionaries(keys, inside, max_size=4)
        return table | table.map(OrderedDict) | st.lists(inside, max_size=3) | st.lists(inside, max_size=3).map(tuple)

    return draw(st.recursive(leaves, containers, max_leaves=8))


@settings(max_examples=600, deadline=None, derandomize=True)
@given(tree=trees(), as_zip=st.booleans(), protocol=st.integers(2, 5))
def test_a_tree_is_what_torch_loads(
    tree: Any, as_zip: bool, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, oracle = (tmp_path_factory.getbasetemp() / name for name in ("tree.pth", "oracle.pth"))
    torch.save(tree, path, _use_new_zipfile_serialization=as_zip, pickle_protocol=protocol)
    torch.save(tree, oracle)  # from legacy files torch cannot load the newer types, as float8
    assert described(loader.load(str(path))) == described(unpickled(oracle))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@zip_and_legacy
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a\0\xff",
        bytes(range(256)) * 40,
        "model = dict()\n" * 1000,
        "\N{BULLET}\xe9\ud800" * 2000,
        {b"a": 1, "a": 2},
        np.float64(0.1),
        np.float32(0.1),
        np.bool_(True),
        np.complex64(1 - 2j),
        np.arange(3, dtype=">i2"),
        np.zeros((2, 0)),
        HistoryBuffer([0.5, 0.25], [1, 2], 3),
        HistoryBuffer(),
        Counter([8, 11, 11]),
        torch.arange(12.0).reshape(3, 4).t(),
        torch.nn.Parameter(torch.arange(3.0)),
    ],
    ids=lambda value: f"{type(value).__name__} {value!r}"[:24].replace("\n", ""),
)
def test_a_value_of_each_kind(value: Any, as_zip: bool, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "value.pth"
    torch.save([value, value], path, _use_new_zipfile_serialization=as_zip, pickle_protocol=protocol)
    assert described(loader.load(str(path))) == described(unpickled(path)) == described([value, value])


def test_what_is_made_can_be_written_to(tmp_path: Path) -> None:
    tree = {"w": torch.ones(3), "a": np.ones(3), "h": HistoryBuffer([1.0], [1])}
    torch.save(tree, tmp_path / "x.pth")
    made = loader.load(str(tmp_path / "x.pth"))
    made["w"] += 1
    made["a"] += 1
    made["h"].update(3.0, 1)
    assert (made["w"].tolist(), made["a"].tolist(), made["h"].mean(2)) == ([2, 2, 2], [2, 2, 2], 2)
    assert described(loader.load(str(tmp_path / "x.pth"))) == described(tree)


VIEW = "zip, a view in a longer storage"
"""The first tensor of this file leaves out four numbers: `broken.padded`."""


def test_a_network_of_every_format(tmp_path: Path) -> None:
    for row in broken.SOUND:
        (folder := tmp_path / str(len(os.listdir(tmp_path)))).mkdir()
        made = loader.load(str(row.write(folder)))
        state = made.get("state_dict", made)
        for name, shape in broken.SHAPES.items():
            start = 4 if row.name == VIEW and name == next(iter(broken.SHAPES)) else 0
            expected = torch.arange(start, start + math.prod(shape), dtype=torch.float32).reshape(shape)
            assert torch.equal(torch.as_tensor(state[name]), expected), (row.name, name)


def _first(storage: Any, _: str) -> Any:
    return storage


PLACES = {
    "none": (None, "cpu"),
    "text": ("cpu", "cpu"),
    "device": (torch.device("cpu"), "cpu"),
    "another": ("meta", "meta"),
    "another device": (torch.device("meta"), "meta"),
    "function": (_first, "cpu"),
    "table": ({"cuda:0": "cpu"}, "cpu"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("saved_on", ["cpu", "cuda:0"])
def test_the_device_that_is_asked_for(place: str, saved_on: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"w": torch.arange(6.0).reshape(2, 3), "deep": [{"t": torch.ones(2, 2).t()}, torch.tensor(3)]}, path)
    if saved_on != "cpu":
        replace_in_pickle(path, b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    asked, expected = PLACES[place]
    made = CheckpointLoader.load_checkpoint(str(path), map_location=asked)
    found = [made["w"], made["deep"][0]["t"], made["deep"][1]]
    assert {t.device.type for t in found} == {expected}
    assert [tuple(t.shape) for t in found] == [(2, 3), (2, 2), ()]
    if expected == "cpu":
        assert described(made) == described(unpickled(path, map_location=_first if asked is None else asked))


# Nothing in a file is run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_command_in_a_file_is_run(container: str, tmp_path: Path) -> None:
    path, mark, (save, load) = tmp_path / "model.pth", tmp_path / "mark", CONTAINERS[container]
    net = torch.nn.Linear(2, 3)
    save({**net.state_dict(), "shell": Shell(mark)}, path)
    with pytest.raises(RuntimeError, match="unexpected key in source state_dict: shell"):
        load_checkpoint(torch.nn.Linear(2, 3), str(path), strict=True)
    assert not mark.exists()
    load(path)  # the command is live
    assert mark.exists()


HISTORY = ("mmengine.logging.history_buffer", "HistoryBuffer")
SCALAR = ("numpy.core.multiarray", "scalar")
F4 = broken.call("numpy", "dtype", text("f4"), broken.integer(0), broken.integer(1))


def numpy_array(length: int) -> bytes:
    return broken.ARRAY + broken.array_state(bytes(length)) + b"b"


def history(values: bytes, counts: bytes, most: bytes, **others: bytes) -> bytes:
    state = {"_log_history": values, "_count_history": counts, "max_length": most, **others}
    return broken.name(*HISTORY) + b")\x81" + broken.table(state) + b"b"


RUNNING: dict[str, Callable[[bytes], bytes]] = {
    "alone": lambda bomb: bomb,
    "key": lambda bomb: broken.table([(bomb, b"N")]),
    "value": lambda bomb: broken.table({"a": bomb}),
    "item": lambda bomb: broken.listing(b"N", bomb),
    "ordered": lambda bomb: broken.ordered(broken.listing(broken.bundle(text("a"), bomb))),
    "history's argument": lambda bomb: broken.call(*HISTORY, bomb),
    "history's values": lambda bomb: history(bomb, bomb, broken.integer(9)),
    "history's length": lambda bomb: history(numpy_array(2), numpy_array(2), bomb),
    "history's methods": lambda bomb: history(
        numpy_array(2), numpy_array(2), broken.integer(9), statistics_methods=broken.table({"mean": bomb})
    ),
    "history's state": lambda bomb: broken.name(*HISTORY) + b")\x81" + bomb + b"b",
    "scalar's type": lambda bomb: broken.call(*SCALAR, bomb, text("abcd")),
    "scalar's data": lambda bomb: broken.call(*SCALAR, F4, bomb),
    "counter's counts": lambda bomb: broken.call("collections", "Counter", broken.table([(broken.integer(1), bomb)])),
    "counter itself": lambda bomb: broken.call("collections", "Counter", bomb),
    "attribute": lambda bomb: broken.call("builtins", "getattr", bomb, text("real")),
    "tensor's storage": lambda bomb: broken.view(bomb, [1], [1]),
    "tensor's shape": lambda bomb: broken.call("torch._utils", "_rebuild_tensor_v2", broken.storage("0", 4), bomb),
}


class Trusting(pickle.Unpickler):
    """Pickle's own, with torch's storages left as what names them."""

    def persistent_load(self, pid: object) -> object:
        return pid


@pytest.mark.parametrize("place", RUNNING)
def test_wherever_it_stands(place: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pth"
    body = RUNNING[place](broken.call("os", "system", text(f": > '{mark}'")))
    path.write_bytes(zipped(body))
    with contextlib.suppress(UnreadableError):
        CheckpointLoader.load_checkpoint(str(path))
    assert not mark.exists()
    with contextlib.suppress(Exception):
        Trusting(io.BytesIO(broken.pickled(body))).load()
    assert mark.exists()  # the command is live


def test_a_function_that_a_file_names_is_not_found_for_it(tmp_path: Path) -> None:
    """``getattr`` of a class is how mmengine saves a scheduler's curve: no way to any other attribute."""
    for owner, name in (("os", "environ"), ("mmengine.optim.scheduler.lr_scheduler", "OneCycleLR")):
        for attribute in ("get", "__init__", "load_state_dict", "__subclasses__", "_annealing_cos.__globals__"):
            body = broken.call("__builtin__", "getattr", broken.name(owner, name), text(attribute))
            (tmp_path / "x.pth").write_bytes(zipped(body))
            assert type(loader.load(str(tmp_path / "x.pth"))) is CallRecord


# Broken and hostile files -----------------------------------------------------------------------------------------

GONE = ("there is no file", "is a directory", "is not a regular file", "cannot be opened")
READABLE = "holds no named tensors"
"""What `convert` says of a file that is sound and no state dict; the loader reads it, as torch would."""


@pytest.mark.parametrize("row", [row for row in broken.ROWS if row.says != READABLE], ids=lambda row: row.name)
def test_a_broken_file_is_refused(row: broken.Row, tmp_path: Path) -> None:
    path = row.write(tmp_path)
    gone = row.says in GONE and not path.is_file()
    with pytest.raises(FileNotFoundError if gone else UnreadableError) as caught:
        load_checkpoint(torch.nn.Linear(1, 1), str(path), strict=True)
    if not gone:
        assert row.says in caught.value.message


@pytest.mark.parametrize("row", broken.HOSTILE, ids=lambda row: row.name)
def test_a_file_that_is_made_to_take_long_does_not(row: broken.Row, tmp_path: Path, guard: None) -> None:
    try:
        answer: Any = loader.load(str(row.write(tmp_path)))
    except UnreadableError as error:
        answer = error
    assert isinstance(answer, dict) or "the file" in answer.message


ALIAS = numpy_array(4) + b"0"
"""An array of four bytes, read and put away: 'array 0' is what the reader calls its bytes."""
MISPLACED = {
    "behind its storage": broken.view(broken.storage("0", 4), [1], [1], 4),
    "longer than its storage": broken.view(broken.storage("0", 4), [5], [1]),
    "wider than its storage": broken.view(broken.storage("0", 4), [4], [3]),
    "in a short array's place": ALIAS + broken.view(broken.storage("array 0", 64), [64], [1]),
    "wider than an array": ALIAS + broken.view(broken.storage("array 0", 64), [4], [9]),
}
AROUND: dict[str, Callable[[bytes], bytes]] = {
    "alone": lambda body: body,
    "in a list": lambda body: broken.listing(body),
    "in a tuple": lambda body: broken.bundle(body),
    "by number": lambda body: broken.table([(broken.integer(0), body)]),
    "by name": lambda body: broken.table({"w": body}),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("kind", MISPLACED)
def test_a_tensor_outside_its_storage_is_refused_wherever_it_stands(kind: str, around: str, tmp_path: Path) -> None:
    """Not only where state dicts stand: what lies behind a storage is another tensor's, or this process's memory."""
    (tmp_path / "x.pth").write_bytes(zipped(AROUND[around](MISPLACED[kind])))
    with pytest.raises(UnreadableError, match="reaches outside its storage"):
        loader.load(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("around", ["in a list", "by number"])
def test_a_tensor_that_expands_to_terabytes_does_not(around: str, tmp_path: Path) -> None:
    body = broken.view(broken.storage("0", 4), [1 << 40], [0])
    (tmp_path / "x.pth").write_bytes(zipped(AROUND[around](body)))
    with pytest.raises(UnreadableError, match="expands"):
        loader.load(str(tmp_path / "x.pth"))


def test_many_tensors_do_not_unfold_into_more_than_one_may(tmp_path: Path) -> None:
    """Each of these takes 64 MiB if it is copied, and 16 bytes of the file; torch copies none."""
    views = {f"w{i}": broken.view(broken.storage("0", 4), [1 << 24], [0]) for i in range(24)}
    (tmp_path / "x.pth").write_bytes(zipped(broken.table(views)))
    made: dict[str, torch.Tensor] = {}
    with contextlib.suppress(UnreadableError):
        made = loader.load(str(tmp_path / "x.pth"))
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in made.values()}
    assert sum(storages.values()) <= 1 << 30


SELF = b"q\x00}" + text("me") + b"h\0sb"
SHY = {
    "state that holds itself": broken.name("a", "B") + b")\x81" + SELF,
    "state without end": broken.name("a", "B") + b")\x81" + broken.DEEP + b"b",
    "arguments without end": broken.name("a", "B") + broken.DEEP + b"R",
    "lists without end in a state": broken.name("a", "B") + b")\x81" + b"]" * 90_000 + b"a" * 89_999 + b"b",
    "scalar without end": broken.call(*SCALAR, F4, broken.DEEP),
    "history of itself": broken.name(*HISTORY)
    + b")\x81q\0"
    + broken.table({"_log_history": b"h\0", "_count_history": b"h\0", "max_length": broken.integer(3)})
    + b"b",
    "history without end": history(broken.DEEP, broken.DEEP, broken.integer(3)),
    "counter without end": broken.call("collections", "Counter", broken.table([(broken.integer(1), broken.DEEP)])),
    "counter of itself": broken.name("collections", "Counter") + b"}q\0" + text("me") + b"h\0s\x85R",
}


@pytest.mark.parametrize("kind", SHY)
def test_an_object_that_holds_itself_or_has_no_end_stays_inert(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(zipped(broken.table({"strange": SHY[kind], "w": broken.FOUR})))
    made = loader.load(str(tmp_path / "x.pth"))
    assert type(made["strange"]) is CallRecord
    assert made["w"].tolist() == [0, 1, 2, 3]


POINT = (
    broken.ARRAY
    + broken.bundle(
        broken.integer(1),
        b")",
        broken.call("numpy", "dtype", text("u1"), broken.integer(0), broken.integer(1)),
        b"\x89",
        text("a"),
    )
    + b"b"
)
"""An array without axes."""
TWO, NINE = numpy_array(2), broken.integer(9)
FORGED = {
    "lengths that differ": history(TWO, numpy_array(3), NINE),
    "numbers without a length": history(POINT, POINT, NINE),
    "arrays that were never filled": history(broken.ARRAY, broken.ARRAY, NINE),
    "lists": history(broken.listing(NINE), broken.listing(NINE), NINE),
    "text": history(text("ab"), text("ab"), NINE),
    "more than its length": history(TWO, TWO, broken.integer(1)),
    "negative length": history(TWO, TWO, broken.integer(-1)),
    "length that is a truth value": history(TWO, TWO, b"\x88"),
    "length that is text": history(TWO, TWO, text("9")),
    "no state": broken.name(*HISTORY) + b")\x81",
    "state that is a list": broken.name(*HISTORY) + b")\x81" + broken.listing(TWO, TWO, NINE) + b"b",
    "scalar of too few bytes": broken.call(*SCALAR, F4, text("ab")),
    "scalar of no bytes": broken.call(*SCALAR, F4, text("")),
    "scalar of too many bytes": broken.call(*SCALAR, F4, text("abcdefgh")),
    "scalar of wide text": broken.call(*SCALAR, F4, text("鍵鍵鍵鍵")),
    "scalar of numbers": broken.call(*SCALAR, F4, NINE),
    "scalar of an unknown type": broken.call(*SCALAR, text("f4"), text("abcd")),
    "scalar without data": broken.call(*SCALAR, F4),
    "counter of text": broken.call("collections", "Counter", text("abc")),
    "counter that counts no numbers": broken.call("collections", "Counter", broken.table({"a": text("b")})),
    "counter of two": broken.call("collections", "Counter", broken.table({}), broken.table({})),
}


@pytest.mark.parametrize("kind", FORGED)
def test_an_object_that_is_not_as_its_writer_writes_it_stays_inert(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(zipped(broken.table({"forged": FORGED[kind], "w": broken.FOUR})))
    made = loader.load(str(tmp_path / "x.pth"))
    assert type(made["forged"]) is CallRecord
    assert made["w"].tolist() == [0, 1, 2, 3]


def test_the_forged_ones_differ_from_sound_ones_by_their_flaw(tmp_path: Path) -> None:
    body = broken.listing(history(TWO, TWO, NINE), broken.call(*SCALAR, F4, text("abcd")))
    (tmp_path / "x.pth").write_bytes(zipped(body))
    made = loader.load(str(tmp_path / "x.pth"))
    assert described(made) == described([HistoryBuffer(*[np.zeros(2, "u1")] * 2, 9), np.frombuffer(b"abcd", "f4")[0]])


# Trainings of mmengine itself -------------------------------------------------------------------------------------

SCHEDULES: dict[str, list[dict[str, Any]]] = {
    "1x": [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 3},
        {"type": "MultiStepLR", "milestones": [1, 2], "by_epoch": True, "gamma": 0.1},
    ],
    "cosine": [
        {"type": "CosineAnnealingLR", "T_max": 6, "by_epoch": False},
        {"type": "LinearMomentum", "start_factor": 0.5, "by_epoch": False, "end": 5},
    ],
    "poly": [{"type": "PolyLR", "power": 0.9, "end": 3, "by_epoch": True}],
    "one cycle": [{"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 6, "by_epoch": False}],
}
"""Of MMDetection's own schedules '1x' is the one that nearly all of its configs have: `configs/_base_/schedules`."""

TRAINING = f"""
import copy, functools, sys, traceback, warnings
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner

own = dict(CheckpointLoader._schemes)
from ckptconv.mmdetection import loader

ours = dict(CheckpointLoader._schemes)


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())

    def forward(self, inputs, mode="loss"):
        y = self.layers(torch.stack(inputs))
        return {{"loss": y.square().mean(), "size": y.mean().detach()}}


class Data(torch.utils.data.Dataset):
    metainfo = {{"classes": ("a", "b"), "palette": [(1, 2, 3), (4, 5, 6)]}}

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return {{"inputs": torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i))}}


class Notes(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        hub = runner.message_hub
        hub.update_info("best_score", np.float32(outputs["size"].item()))
        hub.update_info("curve", np.append(hub.get_info("curve", np.zeros(0)), float(outputs["size"])))
        hub.update_info("running", outputs["size"])


def train(name, schedule, **options):
    torch.manual_seed(0)
    data = dict(dataset=Data(), batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=True))
    Runner(
        Net(),
        name,
        experiment_name=name,
        train_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01)),
        param_scheduler=copy.deepcopy(schedule),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        custom_hooks=[dict(type="EMAHook"), Notes()],
        randomness=dict(seed=3),
        visualizer=None,
        **options,
    ).train()


unpickle = torch.load
WAYS = {{
    "ours": (ours, None),
    "unsafe": (own, functools.partial(unpickle, weights_only=False)),
    "default": (own, unpickle),
}}
for name, schedule in {SCHEDULES!r}.items():
    CheckpointLoader._schemes = own
    train(f"{{name}}-straight", schedule)
    for way, (schemes, load) in WAYS.items():
        CheckpointLoader._schemes, torch.load = schemes, load
        try:
            train(f"{{name}}-{{way}}", schedule, load_from=f"{{name}}-straight/epoch_1.pth", resume=True)
        except Exception as error:
            with open(f"{{name}}-{{way}}/error", "w") as file:
                file.write(f"{{type(error).__name__}}: {{error}}")
        torch.load = unpickle
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each schedule and way: 'straight' through three epochs, or resumed after the first."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "training.py").write_text(TRAINING)
    done = run("training.py", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def error(folder: Path) -> str:
    return (folder / "error").read_text() if (folder / "error").exists() else ""


def comparable(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A detector checkpoint without what no two trainings share: when, how fast, and in which folder."""
    hub = checkpoint["message_hub"]
    hub["log_scalars"] = {k: v for k, v in hub["log_scalars"].items() if not k.endswith("time")}
    checkpoint["meta"] = {k: v for k, v in checkpoint["meta"].items() if k not in ("time", "cfg", "experiment_name")}
    checkpoint["message_hub"] = {k: {n: hub[k][n] for n in sorted(hub[k])} for k in hub}
    for name in ("cfg", "last_ckpt"):
        del checkpoint["message_hub"]["runtime_info"][name]
    return checkpoint


@schedules
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_detector_checkpoint_is_what_torch_loads(schedule: str, epoch: int, trained: Path) -> None:
    path = trained / f"{schedule}-straight" / f"epoch_{epoch}.pth"
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(path, weights_only=True)
    made = loader.load(str(path))
    assert set(made) == {"meta", "state_dict", "ema_state_dict", "message_hub", "optimizer", "param_schedulers"}
    assert isinstance(made["message_hub"]["log_scalars"]["train/loss"], HistoryBuffer)
    assert described(made) == described(unpickled(path))


@pytest.mark.skipif(FORKS, reason="the forks' mmengine reads it, as it runs code in a file")
@schedules
def test_without_the_loader_mmengine_cannot_resume_what_it_saved(schedule: str, trained: Path) -> None:
    assert error(trained / f"{schedule}-default").startswith("UnpicklingError: Weights only load failed")


@schedules
def test_a_training_that_is_resumed_ends_where_an_uninterrupted_one_does(schedule: str, trained: Path) -> None:
    """Weights, their moving average, optimizer, schedulers, message hub: bit for bit, and as after an unsafe resume."""
    ways = {way: trained / f"{schedule}-{way}" for way in ("straight", "unsafe", "ours")}
    assert {way: error(folder) for way, folder in ways.items()} == dict.fromkeys(ways, "")
    ends = {way: comparable(unpickled(folder / "epoch_3.pth")) for way, folder in ways.items()}
    assert ends["straight"]["meta"]["iter"] == 6
    assert len(ends["straight"]["message_hub"]["log_scalars"]["train/loss"].data[0]) == 6
    assert not (ways["ours"] / "epoch_1.pth").exists()  # it was resumed, not begun
    for part in ends["straight"]:
        straight, unsafe, ours = (described(ends[way][part]) for way in ways)
        assert ours == unsafe == straight, part


def test_a_network_takes_the_weights_of_a_detector_checkpoint(trained: Path) -> None:
    path = trained / "cosine-straight" / "epoch_3.pth"
    net = torch.nn.Module()
    net.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    mmengine.runner.load_checkpoint(net, str(path), strict=True)
    assert described(dict(net.state_dict())) == described(dict(unpickled(path)["state_dict"]))
