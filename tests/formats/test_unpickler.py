"""The inert unpickler understands what pickle writes, and does none of it. The oracle is pickle."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv.errors import UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.records import Blob, CallRecord
from ckptconv.formats.unpickler import Unpickler
from ckptconv.sources.file import Source
from tests.formats.test_torch_files import records, write_records

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@contextlib.contextmanager
def opened(path: Path, data: bytes) -> Iterator[tuple[Unpickler, Source]]:
    path.write_bytes(data)
    source = Source(path)
    try:
        yield Unpickler(source, 0, source.size, {}), source
    finally:
        source.close()


def unpickle(path: Path, data: bytes) -> Any:
    """What the sandbox makes of a pickle, with bytes and long texts in the place of what stands for them."""
    with opened(path, data) as (unpickler, source):
        value = _with_bytes(unpickler.load(), source)
        assert unpickler.tell() == source.size
        return value


def _with_bytes(value: Any, source: Source) -> Any:
    if isinstance(value, Blob):
        return value.read(source)
    if isinstance(value, CallRecord):  # how protocols 0 to 2 write bytes
        assert value.kind in ("_codecs.encode", "__builtin__.bytes")
        return codecs.encode(*_with_bytes(value.args, source)) if value.args else b""
    if isinstance(value, dict):
        return {_with_bytes(k, source): _with_bytes(v, source) for k, v in value.items()}
    return type(value)(_with_bytes(v, source) for v in value) if isinstance(value, list | tuple) else value


# It understands what pickle writes --------------------------------------------------------------------------------

text = st.text(st.characters())  # halves of surrogate pairs among them
leaves = (
    st.none() | st.booleans() | st.integers() | st.integers(-(1 << 300), 1 << 300) | st.floats() | text | st.binary()
)
values = st.recursive(
    leaves,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.lists(inside, max_size=4).map(tuple)
        | st.dictionaries(
            st.integers(-(1 << 63), 1 << 63) | text | st.binary() | st.tuples(st.integers(), text), inside, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(value=values, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_are_what_pickle_loads(
    value: object, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = pickle.dumps(value, protocol=protocol)
    found = unpickle(tmp_path_factory.getbasetemp() / "value.pkl", data)
    assert repr(found) == repr(pickle.loads(data))  # 1 is not True, 0.0 not -0.0, and NaN is NaN


@every_protocol
@pytest.mark.parametrize(
    "value",
    ["aé鍵\U0001d11e\ud800", "\\", "\\u0041", "a\nb\r\0", "'\"", "é" * 60_000, b"", bytes(10_000)],
    ids=["scripts", "backslash", "escape", "lines", "quotes", "long", "no bytes", "many bytes"],
)
def test_text_of_every_kind(value: object, protocol: int, tmp_path: Path) -> None:
    assert unpickle(tmp_path / "value.pkl", pickle.dumps([value, value], protocol=protocol)) == [value, value]


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
@pytest.mark.parametrize("value", ["é" * 300_000, bytes(300_000), 1 << 8000], ids=["text", "bytes", "integer"])
def test_values_longer_than_a_window_over_the_file(value: object, protocol: int, tmp_path: Path) -> None:
    assert unpickle(tmp_path / "value.pkl", pickle.dumps([value, 1, value], protocol=protocol)) == [value, 1, value]


@pytest.mark.parametrize(
    "data",
    [
        b"S'a\\x41\\n\\\\ \\xe9'\n.",
        b'S"it\'s"\n.',
        b"U\x03a\xe9b.",
        b"T\x03\x00\x00\x00a\xe9b.",
        b"V\\u00e9\\u005c\xe9\n.",
        b"I01\nI00\n\x86.",
        b"I-42\n.",
        b"L12345678901234567890L\n.",
        b"F1.5e300\nF-inf\n\x86.",
        b"(dp0\nS'a'\np1\n(lp2\nI1\nag2\n0s.",
    ],
)
def test_what_python_2_wrote(data: bytes, tmp_path: Path) -> None:
    assert repr(unpickle(tmp_path / "value.pkl", data)) == repr(pickle.loads(data, encoding="latin-1"))


@every_protocol
def test_many_values_of_every_kind(protocol: int, tmp_path: Path) -> None:
    """More than one window over the file, one batch of items and one byte of memo keys."""
    value = [{"name": f"layer{i}", "shape": (i, 2 * i, 3), "scale": i / 7, "on": i % 2 == 0} for i in range(5000)]
    assert unpickle(tmp_path / "value.pkl", pickle.dumps(value, protocol=protocol)) == value


@every_protocol
def test_what_is_shared_stays_shared(protocol: int, tmp_path: Path) -> None:
    inner: list[object] = [1]
    inner.append(inner)
    with opened(tmp_path / "value.pkl", pickle.dumps({"a": inner, "b": inner}, protocol=protocol)) as (unpickler, _):
        value = unpickler.load()
    assert value["a"] is value["b"] is value["a"][1]
    assert value["a"][0] == 1


@every_protocol
def test_pickles_stand_one_after_another(protocol: int, tmp_path: Path) -> None:
    values = [{"a": 1}, ["text" * 10_000] * 2, [*range(100_000)], None]
    data = b"".join(pickle.dumps(v, protocol=protocol) for v in values)
    with opened(tmp_path / "value.pkl", data) as (unpickler, source):
        assert [_with_bytes(unpickler.load(), source) for _ in values] == values
        assert unpickler.tell() == source.size


def test_every_opcode_of_the_language_is_known_or_refused(tmp_path: Path) -> None:
    """No opcode is read past as if it were another: unknown ones are named."""
    from ckptconv.formats.opcodes import OPCODES

    known = {op.code.encode("latin-1") for op in pickletools.opcodes} - {b"."}
    assert set(OPCODES) == known
    for code in sorted({bytes([i]) for i in range(256)} - known - {b"."}):
        with pytest.raises(UnreadableError, match="there is no opcode"):
            unpickle(tmp_path / "value.pkl", code + b".")


# And does none of it ----------------------------------------------------------------------------------------------

BOMB = "ckptconv_test_bomb"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that appears if the module ckptconv_test_bomb, which can be imported, is."""
    mark = tmp_path / "mark"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{BOMB}.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n\nclass Thing:\n    def __init__(self, *_): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield mark
    sys.modules.pop(BOMB, None)


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f": > '{self.mark}'",)


THING = f"c{BOMB}\nThing\n".encode()
WAYS = {
    "name": THING + b".",
    "STACK_GLOBAL": b"\x8c" + bytes([len(BOMB)]) + BOMB.encode() + b"\x8c\x05Thing\x93.",
    "REDUCE": THING + b")R.",
    "NEWOBJ": THING + b")\x81.",
    "NEWOBJ_EX": THING + b")}\x92.",
    "OBJ": b"(" + THING + b"o.",
    "INST": f"(i{BOMB}\nThing\n.".encode(),
    "BUILD": THING + b")R}X\x01\x00\x00\x00aK\x01sb.",
    "item of a dict": b"}" + THING + b"K\x01s0}.",
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_naming_imports(way: str, mark: Path, tmp_path: Path) -> None:
    data = b"\x80\x04" + WAYS[way]
    with opened(tmp_path / "bomb.pkl", data) as (unpickler, _):
        unpickler.load()
        assert f"{BOMB}.Thing" in unpickler.named
    assert (mark.exists(), BOMB in sys.modules) == (False, False)
    pickle.loads(data)  # the bomb is live
    assert mark.exists()


def _save_zip(tree: object, path: Path) -> None:
    torch.save(tree, path)


def _save_legacy(tree: object, path: Path) -> None:
    torch.save(tree, path, _use_new_zipfile_serialization=False)


def _save_pickle(tree: object, path: Path) -> None:
    path.write_bytes(pickle.dumps({k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in tree.items()}))


def _load_torch(path: Path) -> None:
    torch.load(path, weights_only=False)


CONTAINERS = {
    "torch zip": (_save_zip, _load_torch),
    "torch legacy": (_save_legacy, _load_torch),
    "numpy pickle": (_save_pickle, lambda path: pickle.loads(path.read_bytes())),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_command_in_a_file_is_run(container: str, mark: Path, tmp_path: Path) -> None:
    path, (save, load) = tmp_path / "model.pth", CONTAINERS[container]
    save({"before": torch.ones(2), "shell": Shell(mark), "w": torch.arange(3)}, path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == container
        assert f"{os.system.__module__}.system" in checkpoint.named
        assert set(checkpoint.sections[""].tensors) == {"before", "w"}
        assert dict(checkpoint.sections[""].others) == {"shell": f"{os.system.__module__}.system"}
        assert b"".join(checkpoint.chunks(checkpoint.tensors("")["w"])) == torch.arange(3).numpy().tobytes()
    assert not mark.exists()
    load(path)  # the command is live
    assert mark.exists()


def test_no_module_that_a_checkpoint_names_is_imported(mark: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"w": torch.arange(3), "thing": 12345}, path)
    content = records(path)
    name = next(n for n in content if n.endswith("/data.pkl"))
    content[name] = content[name].replace(b"M90", THING + b")R")
    write_records(path, content)
    with open_checkpoint(path) as checkpoint:
        assert f"{BOMB}.Thing" in checkpoint.named
        assert dict(checkpoint.sections[""].others) == {"thing": f"{BOMB}.Thing"}
    assert (mark.exists(), BOMB in sys.modules) == (False, False)
    torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (("torch._utils", "_rebuild_tensor_v2"), b"(K\x01K\x02t"),
        (("collections", "OrderedDict"), b"(" + THING + b"t"),
        (("torch._tensor", "_rebuild_from_type_v2"), b"(" + THING + THING + b")}t"),
        (("numpy", "dtype"), b"(" + THING + b"t"),
    ],
)
def test_the_names_that_mean_something_call_nothing_either(
    name: tuple[str, str], args: bytes, mark: Path, tmp_path: Path
) -> None:
    """What describes tensors may be given a bomb to handle: the file is refused or read, and the bomb stays one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02c" + "\n".join(name).encode() + b"\n" + args + b"R.")
    (tmp_path / "model.pth").write_bytes(file.getvalue())
    with contextlib.suppress(UnreadableError):
        open_checkpoint(tmp_path / "model.pth").close()
    assert (mark.exists(), BOMB in sys.modules) == (False, False)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x82\x01.", "it uses the copyreg extension registry"),
        (b"\x97.", "it uses out-of-band buffers"),
        (b"K\x01Q.", "it refers to something outside itself"),
        (b"K\x01K\x02\x93.", "a global's name is not text"),
        (b"h\x05.", "KeyError: 5"),
        (b".", "IndexError: pop from empty list"),
        (b"K\x01t.", "a mark is missing"),
        (b"}]K\x01s.", "TypeError: unhashable type: 'list'"),
        (b"X\xff\xff\xff\xffabc.", "a text of 4,294,967,295 bytes"),
        (b"\x8b\xff\xff\xff\x7f.", "an integer of 2147483647 bytes"),
        (b"\x8b\xff\xff\xff\xff.", "an integer of -1 bytes"),
        (b"NT\xfb\xff\xff\xff.", "a text of -5 bytes"),
    ],
)
def test_what_cannot_be_understood_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    """The oracle refuses it too, but for what needs help from outside."""
    with pytest.raises((pickle.UnpicklingError, ValueError, IndexError, TypeError, EOFError, OverflowError)):
        pickle.loads(b"\x80\x05" + data)
    with pytest.raises(UnreadableError) as caught:
        unpickle(tmp_path / "value.pkl", b"\x80\x05" + data)
    assert why in caught.value.message


@every_protocol
def test_a_pickle_that_breaks_off_is_refused(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps({"a": [1, 2.5, "text", (1, 2, 3, 4)], "b": {"c": b"bytes"}}, protocol=protocol)
    for length in range(1, len(data)):
        with pytest.raises(UnreadableError):
            unpickle(tmp_path / "value.pkl", data[:length])
