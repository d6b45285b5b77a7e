"""The page about a conversion: what it shows of networks, tensors and numbers, and that it stays small and quick."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

import ckptconv
from ckptconv.conversion.receipt import Receipt
from ckptconv.conversion.report.layers import END, STEM, Block, blocks
from ckptconv.conversion.report.page import way
from ckptconv.conversion.statistics import TensorStatistics
from ckptconv.errors import UsageError
from ckptconv.methods import registry
from ckptconv.planning.identify import choose
from ckptconv.planning.plan import Plan
from tests.support import cases
from tests.support.html_page import Parsed, require_sound

HOSTILE = "<script>alert(1)</script>"


@cache
def networks() -> dict[str, Plan]:
    """The first plan of the cases for each network and target."""
    plans: dict[str, Plan] = {}
    for case in (case for case in cases.cases() if case.held):
        plan = choose(case.sections, case.method, case.options).plan
        assert plan.backbone is not None
        plans.setdefault(f"{plan.backbone.name} for {plan.target}", plan)
    return plans


def receipt(plan: Plan, **changed: Any) -> Receipt:
    """What converting by this plan would return, with statistics of unlike tensors."""
    numbers = {
        move.target: TensorStatistics(move.spec.numel, 0.01, 0.02 + i / 1e5, -1.0, 1.0)
        for i, move in enumerate(plan.moves)
        if move.spec.dtype.is_float
    }
    return replace(
        Receipt(
            source="in.pth",
            source_format="torch zip",
            source_size=1000,
            plan=plan,
            method=registry.methods()[plan.method],
            method_named=False,
            also=(),
            destination="out.pth",
            destination_format="torch",
            destination_size=900,
            dtype=None,
            fingerprint="ab" * 32,
            proved=len(plan.moves),
            written=True,
            seconds=0.1,
            statistics=numbers,
        ),
        **changed,
    )


def test_every_network_has_a_page_that_is_sound_small_and_quick():
    assert len(networks()) > 50
    for name, plan in networks().items():
        done = receipt(plan)
        started = time.process_time()
        text = done.to_html()
        assert time.process_time() - started < 1, name
        parsed = require_sound(text)
        shown = set(parsed.said("td"))
        assert {move.target for move in plan.moves} <= shown, name
        said = " ".join(parsed.said("summary", "span"))
        assert sum(1 for move in plan.moves if way(move) == "joined") == parsed.said("td").count("joined"), name
        assert not plan.dropped or "entr" in said
        assert len(parsed.said("figcaption")) == 1


def stages(plan: Plan) -> dict[str, list[Block]]:
    found: dict[str, list[Block]] = {}
    for block in blocks(plan):
        if block.name != block.stage:
            found.setdefault(block.stage, []).append(block)
    return found


def test_blocks_and_channels_are_those_of_the_network():
    """What the picture draws, against the facts that the table of networks reads from the same shapes."""
    seen = set()
    for name, plan in networks().items():
        network: Any = plan.backbone
        drawn = stages(plan)
        depths = tuple(len(inside) for stage, inside in drawn.items() if stage != "cls_attn_blocks")
        widths = tuple(dict.fromkeys(block.channels for inside in drawn.values() for block in inside))
        family = network.family
        seen.add(family)
        if family == "ResNet":
            out = tuple(network.planes * (4 if network.bottleneck else 1) << i for i in range(4))
            assert (depths, widths) == (network.depths, out), name
        elif family in ("Swin", "SwinV2", "MixMIM"):
            wide = tuple(network.embed_dim << i for i in range(len(network.depths)))
            assert (depths, widths) == (network.depths, wide), name
        elif family == "ConvNeXt":
            assert (depths, widths) == (network.depths, network.embed_dims), name
        elif family == "Hiera":
            assert sum(depths) == sum(network.depths), name
            assert widths == tuple(network.embed_dim << i for i in range(4)), name
        elif family == "RegNetY":
            assert depths == network.depths, name
        else:
            assert (depths, widths) == ((network.depth,), (network.embed_dim,)), name
    assert {"ResNet", "Swin", "SwinV2", "MixMIM", "ConvNeXt", "Hiera", "ViT", "BEiT", "XCiT", "RegNetY"} <= seen


def test_every_move_is_in_one_block():
    for name, plan in networks().items():
        found = [layer.move.target for block in blocks(plan) for layer in block.layers]
        assert sorted(found) == sorted(move.target for move in plan.moves), name
        ends = [block.stage for block in blocks(plan)]
        assert ends.index(STEM) == 0, name
        assert END not in ends or ends.index(END) == len(ends) - 1, name


def test_each_way_is_named():
    ways = {way(move) for plan in networks().values() for move in plan.moves}
    assert ways == {"kept", "renamed", "joined", "cut", "changed"}


# From a file to a page

torch = pytest.importorskip("torch")


@pytest.fixture
def state() -> dict[str, Any]:
    """A ResNet-18 in torchvision's names, of numbers that look trained."""
    network = networks()["ResNet-18 for mmdet"].backbone
    assert network is not None
    generator = torch.Generator().manual_seed(0)

    def made(name: str, shape: tuple[int, ...]) -> Any:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        if len(shape) == 1:
            return 1 + 0.1 * torch.randn(shape, generator=generator)
        return torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5

    return {name: made(name, torch.Size(shape)) for name, shape in network.entries().items()}


def page_of(folder: Any, state: dict[str, Any], **options: Any) -> tuple[Receipt, Parsed]:
    torch.save(state, folder / "in.pth")
    done = ckptconv.convert(folder / "in.pth", folder / "out.pth", report=folder / "p.html", force=True, **options)
    return done, require_sound((folder / "p.html").read_text(encoding="utf-8"))


def verdict(parsed: Parsed) -> tuple[str, str]:
    """The colour of the verdict, and its first words."""
    (colour,) = [a["class"] for tag, a in parsed.elements if tag == "div" and a.get("class", "").startswith("verdict")]
    return colour.split()[1], parsed.said("b")[0]


@pytest.mark.torch
def test_a_page_has_the_numbers_of_the_file_that_was_written(tmp_path, state):
    done, parsed = page_of(tmp_path, state, dtype="float16")
    written = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    floats = {name: value for name, value in written.items() if value.is_floating_point()}
    assert done.statistics.keys() == floats.keys()
    for name, value in floats.items():
        assert done.statistics[name].std == pytest.approx(float(value.double().std(correction=0)), rel=1e-3), name
    assert verdict(parsed) == ("good", "Converted: 120 tensors of ResNet-18, read back and equal")
    assert done.report == str(tmp_path / "p.html")
    assert done.fingerprint in parsed.said("dd")
    assert "No tensor looks unusual beside the others of its kind." in parsed.said("p")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "change", "said", "colour"),
    [
        ("layer3.0.conv2.weight", lambda v: v.zero_(), "all numbers are 0", "bad"),
        ("layer1.1.bn1.bias", lambda v: v[3:5].fill_(float("nan")), "2 NaN of 64 numbers", "bad"),
        ("conv1.weight", lambda v: v[0, 0, 0, 0].fill_(float("inf")), "1 infinite of 9408 numbers", "bad"),
        ("layer2.1.bn2.weight", lambda v: v.fill_(1), "all numbers are 1: it was not trained", "warn"),
        ("layer4.1.conv1.weight", lambda v: v.fill_(0.02), "all numbers are 0.02: it was not trained", "warn"),
        ("layer4.1.conv1.weight", lambda v: v.mul_(20), "its gain is 20 times the median of 8 such layers", "warn"),
        ("layer1.0.conv2.weight", lambda v: v.div_(50), "its gain is 1/50 of the median of 8 such layers", "warn"),
    ],
)
def test_what_is_unusual_is_marked(tmp_path, state, name, change, said, colour):
    change(state[name])
    _, parsed = page_of(tmp_path, state)
    cells = parsed.said("td")
    assert "What is unusual" in parsed.said("h2")
    found = cells[cells.index(name) + 1]
    assert found.replace("19.9", "20").replace("20.1", "20").replace("49.9", "50").replace("50.1", "50") == said
    assert verdict(parsed)[0] == colour
    marked = [attrs for tag, attrs in parsed.elements if tag == "rect" and "marked" in attrs.get("class", "")]
    assert len(marked) == 1
    assert [text for tag, text in parsed.texts if tag == "span" and text == "1 unusual"] == ["1 unusual"]


@pytest.mark.torch
def test_a_small_difference_is_not_marked(tmp_path, state):
    state["layer4.1.conv1.weight"].mul_(3)
    _, parsed = page_of(tmp_path, state)
    assert verdict(parsed)[0] == "good"


@pytest.mark.torch
def test_a_network_that_was_never_trained_is_said_to_be_one(tmp_path, state):
    for name, value in state.items():
        if value.dim() == 1:
            value.fill_(1.0 if name.endswith(("weight", "var")) else 0.0)
    _, parsed = page_of(tmp_path, state)
    assert verdict(parsed)[0] == "warn"
    assert any(said.startswith("The network looks untrained: the weights of all 20 norms") for said in parsed.said("p"))
    for name, value in state.items():
        if value.dim() == 1 and not name.endswith(("mean", "var")):
            value.uniform_(0.5, 1.5)
    _, parsed = page_of(tmp_path, state)
    assert any("the statistics of all 20 batch norms are those before" in said for said in parsed.said("p"))


@pytest.mark.torch
def test_numbers_whose_squares_are_too_large_have_a_page(tmp_path, state):
    for name in [name for name in state if name.endswith("conv2.weight")]:
        state[name] = state[name].double() * 1e200
    done, parsed = page_of(tmp_path, state)
    assert done.statistics["layer1.0.conv2.weight"].most > 1e199
    assert not math.isfinite(done.statistics["layer1.0.conv2.weight"].std)
    assert {"inf", "nan"} & set(parsed.said("td"))


@pytest.mark.torch
def test_hostile_names_are_text(tmp_path, state):
    inside = {f"{HOSTILE}.{name}": value for name, value in state.items()}
    rest = {f"head.{HOSTILE}.{i}\x1b[31m": torch.zeros(2) for i in range(3)}
    _, parsed = page_of(tmp_path, {**inside, **rest}, strip_prefix=f"{HOSTILE}.")
    tags = {tag for tag, _ in parsed.elements}
    assert "script" not in tags
    assert any(f"from {HOSTILE}.conv1.weight" in said for said in parsed.said("small"))
    assert "head.<script>alert(*)</script>.*\\x1b[31m (3)" in parsed.said("li")


@pytest.mark.torch
def test_without_a_report_nothing_is_measured_or_written(tmp_path, state):
    torch.save(state, tmp_path / "in.pth")
    done = ckptconv.convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert (done.statistics, done.report) == ({}, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pth", "out.pth"]
    parsed = require_sound(done.to_html())
    assert "The numbers" not in parsed.said("h2")


@pytest.mark.torch
def test_the_same_conversion_has_the_same_page(tmp_path, state):
    pages = []
    for _ in range(2):
        page_of(tmp_path, state)
        pages.append((tmp_path / "p.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.torch
def test_a_dry_run_has_a_page_without_numbers(tmp_path, state):
    done, parsed = page_of(tmp_path, state, dry_run=True)
    assert not (tmp_path / "out.pth").exists()
    assert verdict(parsed) == ("good", "Planned: 120 tensors of ResNet-18; nothing was written")
    assert done.statistics == {}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "message", "parameter"),
    [
        ("p.pth", "does not have the name of an HTML page", "report"),
        ("", "does not have the name of an HTML page", "report"),
        ("out.html", "is the file to write, too", "report"),
        ("in.html", "is the input itself", ""),
        ("there.html", "exists", "force"),
        ("none/p.html", "there is no folder", ""),
    ],
)
def test_a_page_that_may_not_be_written_is_refused_before_any_work(tmp_path, state, name, message, parameter):
    torch.save(state, tmp_path / "in.html")
    (tmp_path / "there.html").write_text("mine")
    report = tmp_path / name if name else ""
    with pytest.raises(UsageError, match=message) as caught:
        ckptconv.convert(tmp_path / "in.html", tmp_path / "out.html", report=report, format="torch")
    assert caught.value.parameter == parameter
    assert not (tmp_path / "out.html").exists()
    assert (tmp_path / "there.html").read_text() == "mine"


@pytest.mark.torch
def test_in_a_notebook(tmp_path, state):
    done, _ = page_of(tmp_path, state)
    parsed = Parsed(done._repr_html_())
    assert parsed.said("b") == ["Converted: 120 tensors of ResNet-18, read back and equal"]
    assert done.fingerprint in parsed.said("td")
    plan = ckptconv.plan(tmp_path / "in.pth")
    assert Parsed(plan._repr_html_()).said("b") == ["Complete: 120 tensors of ResNet-18."]
    problems = replace(plan, problems=choose_problems(state))
    parsed = Parsed(problems._repr_html_())
    assert parsed.said("b")[0].startswith("Not complete: ")
    assert any(HOSTILE in said for said in parsed.said("div"))


def choose_problems(state: dict[str, Any]) -> tuple[Any, ...]:
    from ckptconv.planning.problems import NoRule
    from ckptconv.spec import DTYPES, TensorSpec

    return tuple(NoRule(f"{HOSTILE}{i}", TensorSpec((2,), DTYPES["float32"])) for i in range(7))
