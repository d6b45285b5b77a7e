"""What a file may cost: steps, entries and bytes are counted for all of it, and planning is linear in its names."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
import torch

import ckptconv
from ckptconv.errors import UnidentifiedError, UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.formats.dangerous_calls import is_dangerous
from ckptconv.methods import registry
from ckptconv.planning.identify import identify
from ckptconv.planning.options import Options
from ckptconv.spec import DTYPES, Section, TensorSpec


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def named_tuples(fields: int, calls: int) -> bytes:
    """A class of dill's with many fields, made many times of one tuple."""
    names = b"".join(text(f"{i:x}") for i in range(fields))
    made = b"\x80\x02cdill._dill\n_create_namedtuple\n(" + text("n") + b"(" + names + b"tq\x02" + text("m") + b"tRq\x00"
    return made + b"h\x02q\x010](" + b"h\x00h\x01R" * calls + b"e."


def classes(fields: int, calls: int) -> bytes:
    names = b"".join(text("a") for _ in range(fields))
    made = b"\x80\x02cdill._dill\n_create_namedtuple\nq\x00(" + text("n") + b"(" + names + b"t" + text("m") + b"tq\x01"
    return made + b"h\x00h\x01R0" * calls + b"N."


def ordered(pairs: int, calls: int) -> bytes:
    inside = b"".join(b"]" + text(f"{i}") + b"aNa" for i in range(pairs))
    return b"\x80\x02ccollections\nOrderedDict\nq\x00](" + inside + b"e\x85q\x01" + b"h\x00h\x01R0" * calls + b"N."


@pytest.mark.parametrize("make", [named_tuples, classes, ordered])
def test_what_a_pickle_makes_of_few_bytes_is_counted(make: object, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(make(2000, 400))  # type: ignore[operator]
    with pytest.raises(UnreadableError, match="makes dicts of more than 200,000 pairs"):
        open_checkpoint(tmp_path / "m.pkl")


def test_names_and_digits_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x02" + b"".join(b"cm%d\nx\n0" % i for i in range(10_001)) + b"}.")
    with pytest.raises(UnreadableError, match="it names more than 10,000 things"):
        open_checkpoint(path)
    path.write_bytes(b"\x80\x02" + (b"L" + b"9" * 4000 + b"L\n0") * 251 + b"N.")
    with pytest.raises(UnreadableError, match="its integers have more than 1,000,000 digits"):
        open_checkpoint(path)


def test_an_index_is_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "m.index.json"
    path.write_text("{" + " " * (4 << 20))
    with pytest.raises(UnreadableError, match="is JSON of 4,194,305 bytes, not an index of shards"):
        open_checkpoint(path)


def test_all_pickles_of_a_file_share_their_steps(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"w": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    magic, rest = path.read_bytes().split(b"\x80\x02", 2)[1:]
    padded = b"\x80\x02" + magic + b"\x80\x02" + b"N0" * 260_000 + rest
    path.write_bytes(padded)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.sections) == [""]
    path.write_bytes(b"\x80\x02" + magic + b"\x80\x02" + b"N0" * 500_000 + rest)
    with pytest.raises(UnreadableError, match="more than 1,000,000 steps"):
        open_checkpoint(path)
    twice = padded.replace(b"}q", b"N0" * 245_000 + b"}q")
    path.write_bytes(twice)
    with pytest.raises(UnreadableError, match="more than 1,000,000 steps"):
        open_checkpoint(path)


def test_views_that_unfold_to_far_more_than_the_file_are_refused(tmp_path: Path) -> None:
    one = torch.zeros(1)
    torch.save({f"w{i}": one.expand(1 << 20) for i in range(20)}, tmp_path / "m.pth")
    with pytest.raises(UnreadableError, match="its tensors expand 4 bytes into 83,886,080"):
        open_checkpoint(tmp_path / "m.pth")


def test_one_tensor_may_have_several_names(tmp_path: Path) -> None:
    big = torch.zeros(1 << 22)
    torch.save({f"module{i}.weight": big for i in range(8)}, tmp_path / "m.pth")
    with open_checkpoint(tmp_path / "m.pth") as checkpoint:
        assert len(checkpoint.tensors("")) == 8


def names(count: int, pattern: str) -> Section:
    spec = TensorSpec((4,), DTYPES["float32"])
    return Section({pattern.format(i // 7, i): spec for i in range(count)}, {})


def calls_of(section: Section) -> int:
    """How many Python functions are called until the refusal."""
    count = 0

    def counted(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    try:
        with pytest.raises(UnidentifiedError):
            identify({"state_dict": section}, registry.methods(()).values(), Options())
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("pattern", ["module.encoder_q.layer{}.{}.conv1.weight", "x{1}", "a{1}.b{1}.c"])
def test_the_cost_of_a_refusal_is_linear_in_the_names(pattern: str) -> None:
    calls_of(names(50, pattern))  # what is made once
    few, many = calls_of(names(400, pattern)), calls_of(names(1600, pattern))
    assert many < 5 * few


def test_a_section_of_more_names_than_any_network_is_not_asked_whose_it_is() -> None:
    assert calls_of(names(7000, "module.encoder_q.layer{}.{}.conv1.weight")) < 100_000


@pytest.mark.parametrize(
    ("name", "dangerous"),
    [
        ("os.system", True), ("posix.system", True), ("subprocess.Popen", True), ("builtins.eval", True),
        ("__builtin__.exec", True), ("runpy._run_code", True), ("importlib.import_module", True),
        ("torch.hub.load", True),
        ("builtins.set", False), ("builtins.getattr", False), ("collections.OrderedDict", False),
        ("argparse.Namespace", False), ("numpy.core.multiarray.scalar", False), ("pathlib.PosixPath", False),
        ("torch.device", False), ("yacs.config.CfgNode", False), ("__main__.Net", False),
    ],
)  # fmt: skip
def test_which_names_run_something(name: str, dangerous: bool) -> None:
    assert is_dangerous(name) is dangerous


class Shell:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch ran",)


def test_convert_says_what_a_file_would_have_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptconv.cli import main
    from tests.formats.test_unreadable_entries import resnet

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": resnet(), "args": Shell()}, "m.pth")
    receipt = ckptconv.convert("m.pth", "out.pth")
    assert receipt.dangerous == ("posix.system",)
    monkeypatch.setattr("sys.argv", ["ckptconv", "convert", "m.pth", "out.pth", "--force", "--json"])
    with contextlib.suppress(SystemExit):
        main()
    printed = capsys.readouterr()
    assert "warning: unpickling m.pth would have called posix.system. Nothing was run here" in printed.err
    assert '"would_have_called": [' in printed.out
    assert not (tmp_path / "ran").exists()
