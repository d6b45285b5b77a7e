"""What dill, haiku and jax write is read without any of them, bit for bit. The oracles are numpy and the definition."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import ckptconv
from ckptconv.errors import IncompletePlanError, UnreadableError
from ckptconv.formats import open_checkpoint
from ckptconv.planning.identify import choose
from ckptconv.planning.options import Options
from ckptconv.sections import section_at
from tests.support import haiku_files

STATE = "experiment_state..."


@pytest.fixture(scope="module", params=haiku_files.WAYS)
def byol(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return haiku_files.write(tmp_path_factory.mktemp("byol") / "pretrain_res50x1.pkl", request.param)


def flat(prefix: str, tree: haiku_files.Tree) -> dict[str, Any]:
    return {
        f"{prefix}.{module.replace('/', '.')}.{name}": array
        for module, own in tree.items()
        for name, array in own.items()
    }


def test_every_array_is_read_by_the_path_to_it(byol: Path) -> None:
    online, target = (haiku_files.with_heads(*haiku_files.network(seed=s), s + 2) for s in (0, 1))
    expected = {
        **flat("online_params", online[0]),
        **flat("target_params", target[0]),
        **flat("online_state", online[1]),
        **flat("target_state", target[1]),
        **flat("opt_state.1.mu", target[0]),
    }
    with open_checkpoint(byol) as checkpoint:
        assert {"step", "experiment_state"} <= set(checkpoint.sections[""].others)
        found = checkpoint.tensors(STATE)
        assert set(found) == set(expected)
        for name, tensor in found.items():
            array = checkpoint.array(tensor)
            assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape), name
            assert array.tobytes() == b"".join(checkpoint.chunks(tensor)) == expected[name].tobytes(), name


def test_nothing_it_names_is_imported(byol: Path) -> None:
    with open_checkpoint(byol) as checkpoint:
        named = {name.split(".")[0] for name in checkpoint.named}
    assert {"haiku", "dill"} <= named
    assert not {"haiku", "dill", "jax"} & set(sys.modules)


def test_the_backbone_is_the_online_network_in_torchs_order_of_axes(byol: Path, tmp_path: Path) -> None:
    receipt = ckptconv.convert(byol, tmp_path / "r50.safetensors")
    assert (receipt.method.name, receipt.proved) == ("byol", 265)
    assert receipt.also == ()
    written = safetensors.numpy.load_file(tmp_path / "r50.safetensors")
    params, state = haiku_files.network(seed=0)
    wanted = dict[str, Any]()
    for conv, norm, _ in haiku_files.convolutions(haiku_files.BLOCKS[50], 4):
        at = conv.removeprefix("block_group_").split("/~/")
        if conv == "initial_conv":
            ours, ours_norm = "conv1", "bn1"
        else:
            block = f"layer{int(at[0]) + 1}.{at[1].removeprefix('block_')}."
            n = at[2][-1]
            number = None if at[2] == "shortcut_conv" else int(n) + 1
            ours = f"{block}conv{number}" if number else f"{block}downsample.0"
            ours_norm = f"{block}bn{number}" if number else f"{block}downsample.1"
        wanted[f"{ours}.weight"] = np.einsum("hwio->oihw", params[f"res_net50/~/{conv}"]["w"])
        theirs = params[f"res_net50/~/{norm}"]
        wanted[f"{ours_norm}.weight"], wanted[f"{ours_norm}.bias"] = theirs["scale"][0, 0, 0], theirs["offset"][0, 0, 0]
        for average, own in (("mean_ema", "running_mean"), ("var_ema", "running_var")):
            wanted[f"{ours_norm}.{own}"] = state[f"res_net50/~/{norm}/~/{average}"]["average"][0, 0, 0]
    assert set(written) == set(wanted)
    for name, array in wanted.items():
        assert np.array_equal(written[name], array), name


def test_a_resnet_200_is_read_and_has_no_place_in_mmdetection(tmp_path: Path) -> None:
    path = haiku_files.write(tmp_path / "pretrain_res200x2.pkl", "dill 0.3.8", 200)
    with pytest.raises(IncompletePlanError) as caught:
        ckptconv.plan(path, "byol")
    assert "mmdet cannot hold ResNet-200, width x0.0625: MMDetection's ResNet has the depths 18" in str(caught.value)
    plan = ckptconv.plan(path, target="official")
    assert "layer3.35.conv3.weight" in {move.target for move in plan.moves}
    assert plan.backbone is not None
    assert len(plan.moves) == sum(not plan.backbone.optional(name) for name in plan.backbone.entries())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda params, state: {"params": params, "state": state},
        lambda params, state: {**params, **state},
        lambda params, state: (params, state),
        lambda params, state: {"step": 3, "net": [params, {"ema": state}]},
    ],
    ids=["two trees", "one tree", "a pair", "nested"],
)
def test_detcon_is_found_wherever_its_trees_lie(wrap: Any, tmp_path: Path) -> None:
    params, state = haiku_files.network()
    box = np.empty((), object)
    box[()] = wrap(params, state)
    np.save(tmp_path / "resnet50_detcon_b_imagenet_1k.npy", box, allow_pickle=True)
    receipt = ckptconv.convert(tmp_path / "resnet50_detcon_b_imagenet_1k.npy", tmp_path / "r50.safetensors")
    assert (receipt.method.name, receipt.plan.section, receipt.proved) == ("detcon", "...", 265)
    written = safetensors.numpy.load_file(tmp_path / "r50.safetensors")
    kernel = params["res_net50/~/block_group_3/~/block_0/~/conv_1"]["w"]
    assert np.array_equal(written["layer4.0.conv2.weight"], np.einsum("hwio->oihw", kernel))


def test_two_networks_in_one_detcon_file_are_no_guess(tmp_path: Path) -> None:
    nets = {
        name: dict(zip(("params", "state"), haiku_files.network(seed=i), strict=True)) for i, name in enumerate("ab")
    }
    np.save(tmp_path / "two.npy", np.array(nets, dtype=object), allow_pickle=True)
    with pytest.raises(IncompletePlanError, match=r"conv1\.weight is already made from a\.params"):
        ckptconv.plan(tmp_path / "two.npy", "detcon")
    assert ckptconv.plan(tmp_path / "two.npy", "detcon", section="b...").complete


# -- long texts stay in the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [500, 1000, 1025, 100_000])
def test_an_array_that_stands_in_the_file_as_text_is_read_at_the_end(length: int, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 1 << 32, length, np.uint32)
    path = tmp_path / "array.pkl"
    path.write_bytes(pickle.dumps({"w": array, "t": array.reshape(-1, 5).T}, protocol=2))
    with open_checkpoint(path) as checkpoint:
        for name, tensor in checkpoint.tensors("").items():
            storage = checkpoint.locate(tensor.storage)
            assert (storage.inline is None) == (length > 500), "a text of up to 4096 bytes is read at once"
            assert b"".join(checkpoint.chunks(tensor)) == (array if name == "w" else array.reshape(-1, 5).T).tobytes()


LETTERS = b"A" * 40_000


def with_text(path: Path, text: bytes, length: int = 10_000) -> Path:
    """A pickled dict of one float32 array of a length, its 40,000 bytes replaced by another text of as many."""
    assert len(text) == len(LETTERS)
    data = pickle.dumps({"w": np.frombuffer(LETTERS, "f4")}, protocol=2)
    assert data.count(LETTERS) == data.count(b"M\x10'\x85") == 1
    path.write_bytes(data.replace(LETTERS, text).replace(b"M\x10'\x85", b"M" + length.to_bytes(2, "little") + b"\x85"))
    return path


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (LETTERS[1:] + "\xe9".encode()[:1], 10_000),
        ("\xe9".encode() + LETTERS[2:], 10_000),
        ("\N{BULLET}".encode() + LETTERS[3:], 10_000),
        ("\N{BULLET}".encode() + LETTERS[3:], 9_999),
        (LETTERS, 9_999),
        (LETTERS, 5_000),
    ],
    ids=["no UTF-8", "too few letters", "no Latin-1", "one letter for four", "too many letters", "all of them ASCII"],
)
def test_a_text_that_is_no_array_is_refused_when_it_is_read(text: bytes, length: int, tmp_path: Path) -> None:
    with open_checkpoint(with_text(tmp_path / "array.pkl", text, length)) as checkpoint:
        tensor = checkpoint.tensors("")["w"]
        with pytest.raises(UnreadableError, match=f"is not an array's {4 * length:,} bytes"):
            checkpoint.array(tensor)


@pytest.mark.parametrize("length", [4_999, 10_001, 30_000])
def test_a_text_that_cannot_be_the_array_is_refused_at_once(length: int, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=f"an array of {4 * length:,} bytes is given 40,000"):
        open_checkpoint(with_text(tmp_path / "array.pkl", LETTERS, length))


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (
            b"cdill._dill\n_create_namedtuple\n(X\x01\0\0\0aK\x01X\x01\0\0\0btR)\x81",
            "fields of the named tuple a are not names",
        ),
        (b"cdill._dill\n_create_namedtuple\n(X\x01\0\0\0a]X\x01\0\0\0btRK\x01\x85\x81", "of 0 fields holds 1 values"),
    ],
)
def test_a_named_tuple_that_makes_no_sense_is_refused(tree: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "state.pkl").write_bytes(b"\x80\x02" + tree + b".")
    with pytest.raises(UnreadableError, match=says):
        open_checkpoint(tmp_path / "state.pkl")


@pytest.mark.parametrize(
    "tree",
    [
        b"cdill._dill\n_get_attr\ncdill._dill\n_import_module\nX\x02\0\0\0os\x85RX\x06\0\0\0system\x86RX\x04\0\0\0exit\x85R",
        b"cdill._dill\n_get_attr\nK\x01X\x06\0\0\0system\x86R",
        b"cdill._dill\n_create_array\ncos\nsystem\nX\x04\0\0\0exit\x85NN(t\x87R0K\x01",
        b"chaiku._src.data_structures\nFlatMapping\nK\x01\x85R",
    ],
)
def test_a_call_that_is_hidden_in_one_of_these_stays_a_record(tree: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.pkl").write_bytes(b"\x80\x02" + tree + b".")
    with pytest.raises(UnreadableError, match=r"holds no named tensors|malformed"):
        ckptconv.plan(tmp_path / "state.pkl")


def test_the_section_below_a_path_can_be_asked_for_by_name(tmp_path: Path) -> None:
    path = haiku_files.write(tmp_path / "b.pkl", "dill 0.3.8")
    with open_checkpoint(path) as checkpoint:
        assert choose(checkpoint.sections, "byol", Options(section=STATE)).plan.complete
        assert section_at(checkpoint.sections, "nothing...") is None
