"""The command line as a user meets it: what is printed where, exit codes, JSON, options. One process a command."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from ckptconv.backbones import TARGETS
from ckptconv.backbones.beit import Beit
from ckptconv.backbones.convnext import ConvNeXt
from ckptconv.backbones.vit import VisionTransformer
from ckptconv.cli import render_checkpoints
from ckptconv.conversion import convert
from ckptconv.methods import FAMILIES, METHODS, registry
from ckptconv.rules import Drop, keep
from tests.support import forked, hollow


@pytest.fixture(scope="module")
def lightly(tmp_path_factory):
    return hollow.fill("lightly_moco_resnet18_sequential", tmp_path_factory.mktemp("cli") / "epoch=9.ckpt")


def ckptconv(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ckptconv", *map(str, args)]
    return forked.run(command, env={**os.environ, **env}, server=forked.COMMANDS)


def test_convert_says_what_it_did_on_stdout_only(lightly, tmp_path):
    done = ckptconv("convert", lightly, tmp_path / "r18.pth")
    assert (done.returncode, done.stderr) == (0, "")
    labels = [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "]
    assert labels == ["read", "method", "backbone", "dropped", "copies", "wrote", "proved", "next"]
    assert "lightly: lightly's benchmarks and examples, example: nn.Sequential" in done.stdout
    assert "ResNet-18: 120/120 tensors for mmdet, of 248 in the file" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.torch
def test_convert_json_accounts_for_every_tensor(lightly, tmp_path):
    import torch

    done = ckptconv("convert", lightly, tmp_path / "r18.safetensors", "--json")
    data = json.loads(done.stdout)
    assert (data["schema"], data["command"], data["method"]["name"]) == (2, "convert", "lightly")
    source = torch.load(lightly, weights_only=True)["state_dict"]
    kept = {s for sources in data["tensors"]["kept"].values() for s in sources}
    assert kept | set(data["tensors"]["dropped"]) == set(source)
    assert not kept & set(data["tensors"]["dropped"])
    assert all(data["tensors"]["dropped"].values())
    assert data["output"]["proved"] == len(kept) == 120
    with safe_open(tmp_path / "r18.safetensors", "pt") as file:
        assert set(file.keys()) == set(data["tensors"]["kept"])
        said = json.loads(file.metadata()["ckptconv"])
    assert said["method"] == "lightly"
    assert said["source"] == {"name": "epoch=9.ckpt", "format": "torch zip", "bytes": lightly.stat().st_size}
    assert str(tmp_path) not in json.dumps(said)


VIT = VisionTransformer(64, 2, 128, 16, 14 * 14)
CAE = Beit(64, 2, 128, 16, 14, 1, shared_relative_positions=False, absolute_positions=True)
CONVNEXT = ConvNeXt(
    (1, 1, 1, 1), (8, 16, 32, 64), grn=False, layer_scale=True, final_norm=True, patch_size=4, in_channels=3
)
VITDET = " --base projects/ViTDet/configs/vitdet_mask-rcnn_vit-b-mae_lsj-100e.py -o detector.py"
ONE_MAP = " --base mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py -o detector.py"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("network", "target", "more"),
    [
        (CONVNEXT, "mmpretrain", " -o mask_rcnn.py"),
        (CONVNEXT, "official", None),
        (VIT, "vitdet", VITDET),
        (VIT, "mmpretrain", ONE_MAP),
        (VIT, "timm", " -o mask_rcnn.py"),
        (CAE, "mmpretrain", ONE_MAP),
        (CAE, "vitdet", VITDET),
        (replace(CAE, shared_relative_positions=True), "mmpretrain", None),
        (CAE, "official", None),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "entries") else "",
)
def test_convert_ends_with_the_next_step_of_its_target(network, target, more, tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({name: torch.rand(shape) for name, shape in network.entries().items()}, "raw.pth")
    render_checkpoints.receipt(
        convert.convert("raw.pth", "a b.pth", [keep("{key...}", "{key...}")], target=target), False
    )
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next")]
    assert said == ([f"next      ckptconv emit-config 'a b.pth'{more}"] if more else [])


def test_dry_run_writes_nothing(lightly, tmp_path):
    done = ckptconv("convert", lightly, tmp_path / "r18.pth", "--dry-run")
    assert done.returncode == 0
    assert "was not written" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_rounded_safetensors_file_is_read_by_its_own_library(lightly, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    assert ckptconv("convert", lightly, whole).returncode == 0
    assert ckptconv("convert", lightly, half, "--dtype", "float16").returncode == 0
    wanted, found = load_file(whole), load_file(half)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        rounded = array.astype("float16") if array.dtype.kind == "f" else array
        assert found[name].dtype == rounded.dtype
        assert (found[name] == rounded).all()


@pytest.mark.torch
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_dtype_rounds_floating_tensors_as_torch_does(lightly, tmp_path, name):
    import torch

    out, dtype = tmp_path / "r18.pth", getattr(torch, name)
    done = ckptconv("convert", lightly, out, "--dtype", name)
    assert f"rounded   floating tensors to {name}: no longer bit for bit the source" in done.stdout
    source = torch.load(lightly, weights_only=True)["state_dict"]
    written = torch.load(out, weights_only=True)["state_dict"]
    assert written["bn1.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(written["conv1.weight"], source["backbone.0.weight"].to(dtype))
    assert torch.equal(written["layer4.1.bn2.running_var"], source["backbone.7.1.bn2.running_var"].to(dtype))


@pytest.mark.parametrize(
    ("args", "code", "message", "hint"),
    [
        (["--dtype", "int8"], 2, "tensors of type int8 cannot be cast", "Types that can: float16"),
        (["--dtype", "floaty"], 2, "there is no element type 'floaty'", "Types that can be cast to: float16"),
        (["--format", "onnx"], 2, "there is no format 'onnx'", "Formats: torch, safetensors."),
        (["--target", "detectron"], 2, "there is no target 'detectron'", f"Targets: {', '.join(TARGETS)}."),
        (["--section", "teacher"], 2, "there is no section 'teacher'", "Sections: 'state_dict'"),
        (["--drop", "nothing.{p}"], 2, "--drop 'nothing.{p}' matches no name", "ckptconv inspect"),
        (["--drop", "{p"], 2, "the pattern '{p' has a stray brace", "{x} or {x...}"),
        (
            ["--selfsup", "lightning"],
            2,
            "there is no method 'lightning'",
            "Did you mean lightning-bolts or lightly-train or lightly?",
        ),
        (["--selfsup", "moco"], 1, "the rules of moco do not account for", "--selfsup lightly"),
        (
            ["--strip-prefix", "encoder."],
            2,
            "no name starts with 'encoder.'",
            "A ResNet-18 is in 'state_dict': ckpt",
        ),
        (["--rules", "absent.toml"], 2, "the rule file absent.toml cannot be read", "TOML"),
    ],
)
def test_refusals(lightly, tmp_path, args, code, message, hint):
    done = ckptconv("convert", lightly, tmp_path / "out.pth", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert re.search(rf"^hint: .*{re.escape(hint)}", done.stderr, re.M), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_refusals_in_json(lightly, tmp_path):
    done = ckptconv("convert", lightly, tmp_path / "out.pth", "--selfsup", "moco", "--json")
    data = json.loads(done.stdout)
    assert done.returncode == data["error"]["exit_code"] == 1
    assert data["error"]["hint"].startswith("The file is explained by lightly")


def test_usage_errors_of_the_command_line_itself():
    assert ckptconv("convert").returncode == 2
    assert ckptconv("transmogrify").returncode == 2
    assert ckptconv("--version").stdout.startswith("ckptconv ")


@pytest.mark.torch
def test_inspect_json(lightly):
    import torch

    data = json.loads(ckptconv("inspect", lightly, "--json").stdout)
    assert (data["schema"], data["format"]) == (2, "torch zip")
    shapes = {k: tuple(t["shape"]) for k, t in data["sections"]["state_dict"]["tensors"].items()}
    assert shapes == {k: tuple(t.shape) for k, t in torch.load(lightly, weights_only=True)["state_dict"].items()}
    best = data["fits"][0]
    assert (best["method"], best["complete"], best["problems"]) == ("lightly", True, 0)


@pytest.mark.torch
def test_inspect_json_names_what_is_near_and_what_it_leaves(lightly, tmp_path):
    import torch

    state = torch.load(lightly, weights_only=True)["state_dict"]
    numbered = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    torch.save({"state_dict": {**numbered, "fc.weight": torch.zeros(2, 512)}}, tmp_path / "more.pth")
    fits = json.loads(ckptconv("inspect", tmp_path / "more.pth", "--json").stdout)["fits"]
    assert fits
    assert all(not fit["complete"] and fit["problems"] and fit["first"] for fit in fits)


def test_inspect_folds_numbers_and_all_unfolds_them(lightly):
    folded, full = ckptconv("inspect", lightly).stdout, ckptconv("inspect", lightly, "--all").stdout
    assert re.search(r"MB ███▉ +\{4..7\}.\{0,1\}\n.* conv\{1,2\}.weight +16 x \[64, 64, 3, 3\] …", folded)
    assert "backbone.7.1.conv2.weight  float32 [512, 512, 3, 3]" in full


def test_explain(lightly):
    kept = ckptconv("explain", lightly, "backbone.4.0.conv1.weight").stdout
    assert "kept      as layer1.0.conv1.weight: only its name changes" in kept
    assert "rule      keep backbone.4.{key...} -> layer1.{key...}" in kept
    data = json.loads(ckptconv("explain", lightly, "backbone_momentum.0.weight", "--json").stdout)
    assert (data["fate"], data["why"]) == ("dropped", "the momentum copy of the backbone")
    unknown = ckptconv("explain", lightly, "backbone.4.0.conv1.weigth")
    assert unknown.returncode == 2
    assert "Did you mean backbone.4.0.conv1.weight" in unknown.stderr
    lost = ckptconv("explain", lightly, "backbone.0.weight", "--selfsup", "moco").stdout
    assert "unexplained backbone.0.weight (float32 [64, 3, 7, 7]): no rule explains it" in lost


def test_methods_lists_the_table():
    done = ckptconv("methods")
    assert all(re.search(rf"^  {re.escape(m.name)}\*? ", done.stdout, re.M) for m in METHODS)
    titles = [line for line in done.stdout.splitlines() if line[:1].isalpha()]
    assert titles[:-1] == list(FAMILIES)
    data = json.loads(ckptconv("methods", "--json").stdout)
    assert [m["name"] for m in data["methods"]] == [m.name for m in METHODS]
    assert all(m["layouts"] and m["title"] for m in data["methods"])
    assert all("published" not in m for m in data["methods"])


def test_the_table_of_methods_has_a_line_a_method_with_its_networks_and_files():
    lines = [line.rstrip() for line in ckptconv("methods").stdout.splitlines()]
    assert max(map(len, lines)) == 120
    (line,) = (line for line in lines if line.startswith("  moco "))
    assert line.split() == ["moco", "MoCo", "v1", "and", "v2", "ResNet", "3", "files"]
    (line,) = (line for line in lines if line.startswith("  timm "))
    assert line.endswith("ViT, Hiera, XCiT +6")


@pytest.mark.parametrize(
    ("word", "listed"),
    [
        ("hiera", ["hiera"]),  # a method of this name comes first
        ("xcit", [m.name for m in METHODS if "XCiT" in m.networks]),
        ("Masked image", [m.name for m in FAMILIES["Masked image modelling"]]),
        ("Lightning", ["bolts"]),
    ],
)
def test_a_word_lists_the_methods_about_it(word, listed):
    data = json.loads(ckptconv("methods", word, "--json").stdout)["methods"]
    assert [one["name"] for one in data] == listed


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_method_is_shown_in_full(method, capsys):
    from ckptconv.cli import render_methods
    from ckptconv.mmdetection.verify.recipes import RECIPES

    render_methods.named([method], RECIPES.values(), as_json=False)
    shown = capsys.readouterr().out
    said = [method.name, method.title, method.paper, method.repository]
    said += [text for release in method.releases for text in (release.name, release.url, release.md5)]
    said += [*method.aliases, *(layout.title for layout in method.layouts)]
    said += [rule.why for layout in method.layouts for rule in layout.rules if isinstance(rule, Drop)]
    said += [
        str(source) for layout in method.layouts for r in layout.rules if isinstance(r, Drop) for source in r.sources
    ]
    assert [text for text in said if text not in shown] == []
    rows = [row for row in RECIPES.values() if row.method == method.name]
    assert shown.count("box ") == len(rows)
    assert all(f"box {row.box:g}, mask {row.mask:g}" in shown and row.source in shown for row in rows)
    assert ("never guessed" in shown) == (not method.guess)
    kept = sum(not isinstance(rule, Drop) for layout in method.layouts for rule in layout.rules)
    folded = re.findall(r"^  keeps .*?(?:, (\d+) rules)?(?:; \w+\(.*)?$", shown, re.M)
    assert sum(int(count or 1) for count in folded) == kept


def test_one_method_in_json_and_by_a_name_that_is_none():
    (data,) = json.loads(ckptconv("methods", "moco", "--json").stdout)["methods"]
    assert (data["name"], data["layouts"][0]["drops"]["queue"]) == ("moco", "the queue of negatives")
    assert {(row["box"], row["mask"]) for row in data["published"] if row["digest"]} == {(38.0, 34.3), (40.8, 36.8)}
    done = ckptconv("methods", "moko")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean moco or mocov3?" in done.stderr


def test_a_method_is_shown_by_its_other_names():
    done = ckptconv("methods", "MoCo_v2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("method    moco: MoCo v1 and v2\naliases   moco-v1, moco-v2, momentum-contrast\n")
    (data,) = json.loads(ckptconv("methods", "Moco", "--json").stdout)["methods"]
    assert data["aliases"] == ["moco-v1", "moco-v2", "momentum-contrast"]


def test_an_alias_of_several_methods_lists_them():
    done = ckptconv("methods", "npid")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if line[:2] == "  "] == ["mmselfsup", "vissl"]
    both = json.loads(ckptconv("methods", "NPID", "--json").stdout)["methods"]
    assert [data["name"] for data in both] == ["mmselfsup", "vissl"]


def test_a_method_of_a_rule_file_is_shown_too(tmp_path):
    rules = 'name = "mine"\nrules = [{keep = "e.{key...}", to = "{key...}"}, {drop = "h.{p}", why = "the head"}]\n'
    (tmp_path / "mine.toml").write_text(rules)
    done = ckptconv("methods", "mine", "--rules", tmp_path / "mine.toml")
    assert "  keeps   e.{key...} -> {key...}\n  drops   the head: h.{p}\n" in done.stdout


def in_a_terminal(*args: object, **env: str) -> str:
    """What a command prints when both its outputs are a terminal."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ckptconv", *map(str, args)]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm", **env})
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not part:
            break
        seen += part
    os.close(leader)
    assert process.wait() == 0
    return seen.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_of_methods_fits_into_the_terminal_and_breaks_no_name(columns):
    shown = in_a_terminal("methods", NO_COLOR="1", COLUMNS=str(columns)).replace("\r", "").splitlines()
    assert max(map(len, shown)) <= columns
    assert {line.split()[0].rstrip("*") for line in shown if line[:2] == "  " and line[2] != " "} == {
        m.name for m in METHODS
    }


def test_sentences_are_folded_to_the_terminal_and_commands_are_not(lightly):
    shown = in_a_terminal("inspect", lightly, NO_COLOR="1", COLUMNS="80").replace("\r", "").splitlines()
    (at,) = (i for i, line in enumerate(shown) if line.startswith("sure "))
    assert max(map(len, shown[at : at + 2])) <= 80
    assert shown[at + 1].startswith(" " * 10)
    assert f"convert   ckptconv convert {lightly} backbone.pth" in shown


def test_colors_on_a_terminal_unless_told_not_to(lightly, tmp_path):
    assert "\x1b[1m" in in_a_terminal("convert", lightly, tmp_path / "a.pth")
    assert "\x1b" not in in_a_terminal("convert", lightly, tmp_path / "b.pth", NO_COLOR="1")


def test_a_bar_shows_when_the_bytes_or_the_seconds_are_many(monkeypatch, capsys):
    from ckptconv.cli import render

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for total, patience, shown in ((1000, 60, False), (render._MANY_BYTES, 60, True), (1000, 0, True)):
        monkeypatch.setattr(render, "_PATIENCE", patience)
        with render.progress() as show:
            assert show is not None
            show("writing", total // 2, total)
        assert ("writing" in capsys.readouterr().err) is shown


def test_each_phase_of_a_conversion_is_told_with_all_its_bytes(lightly, tmp_path):
    told = []
    convert.convert(lightly, tmp_path / "r18.pth", progress=lambda *phase: told.append(phase))
    assert list(dict.fromkeys(phase for phase, _, _ in told)) == ["writing", "proving", "syncing"]
    last = {phase: (done, total) for phase, done, total in told}
    assert last["writing"][0] == last["writing"][1] == last["proving"][0] == last["proving"][1] > 40e6
    assert last["syncing"] == (0, last["writing"][1])


@pytest.mark.parametrize("command", [["methods"], ["convert", "SRC", "DST"], ["inspect", "SRC"]], ids=lambda c: c[0])
def test_closed_outputs_are_no_error(lightly, tmp_path, command):
    words = [str({"SRC": lightly, "DST": tmp_path / "r18.pth"}.get(word, word)) for word in command]
    script = 'exec "$@" >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "ckptconv", *words], check=False, timeout=120
    )
    assert done.returncode == 0


@pytest.mark.parametrize("pattern", ["MoCo-v1", "moco_v1", "mocov1", "*MOCO_V1*", "moco v1"])
def test_releases_are_found_as_people_type_them(pattern):
    done = ckptconv("releases", pattern, "--json")
    assert [release["name"] for release in json.loads(done.stdout)["releases"]] == ["moco_v1_200ep"]


def test_releases_are_found_by_an_alias_of_their_method_where_no_name_fits():
    named = json.loads(ckptconv("releases", "sela", "--json").stdout)["releases"]
    assert {release["name"] for release in named} == {"selav2_400ep", "selav2_400ep_2x224"}
    named = json.loads(ckptconv("releases", "transformer-ssl", "--json").stdout)["releases"]
    assert {release["name"] for release in named} == {
        "moby_swin_t_300ep_pretrained",
        "moby_deit_small_300ep_pretrained",
    }


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("nothing_like", "See all of them: ckptconv releases"),
        ("barlowtwinz", "Did you mean barlowtwins or barlowtwins_hub or barlow?"),
    ],
)
def test_a_release_that_there_is_not_is_said_to_be_none(pattern, hint):
    done = ckptconv("releases", pattern)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: no release fits '{pattern}'\nhint: {hint}\n"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("o.onnx", "an ONNX model"), ("o.H5", "an HDF5 file"), ("o.npz", "a numpy archive")],
)
def test_a_name_of_another_kind_of_file_is_refused_before_anything_is_read(tmp_path, name, kind):
    done = ckptconv("convert", tmp_path / "absent.pth", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path / name} has the name of {kind}, and ckptconv writes torch and safetensors files\n"
        f"hint: Give a name that ends in .pth or .safetensors, such as {tmp_path / 'o.pth'}.\n"
    )
    assert (
        "there is no file" in ckptconv("convert", tmp_path / "absent.pth", tmp_path / name, "--format", "torch").stderr
    )


@pytest.mark.parametrize("repository", ["facebook/dino-vitb16", "timm/vit_base_patch16_224.dino"])
def test_a_repository_of_the_hub_is_no_path_and_is_told_how_it_is_written(repository):
    done = ckptconv("inspect", repository)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"error: there is no file {repository}\n"
        f"hint: A file of that repository of the Hugging Face Hub is written hf://{repository}/FILE, "
        f"such as hf://{repository}/model.safetensors\n"
    )


def test_bare_names_are_announced_as_those_of_all_who_publish_such_files(tmp_path):
    file = hollow.fill("mae_vitb16_released", tmp_path / "mae.pth")
    lines = ckptconv("convert", file, tmp_path / "o.pth", "--dry-run").stdout.splitlines()
    assert lines[1:3] == [
        "method    mae or timm: bare ViT (found by its names)",
        "          their files have the same names, which do not tell what the network was fed",
    ]
    told = json.loads(ckptconv("convert", file, tmp_path / "o.pth", "--dry-run", "--json").stdout)["method"]
    assert (told["name"], told["also"]) == ("timm", ["mae"])
    lines = ckptconv("convert", file, tmp_path / "o.pth", "--dry-run", "--selfsup", "MAE").stdout.splitlines()
    assert lines[1] == "method    mae: MAE, released backbone (as asked)"


def test_a_missing_path_is_no_repository(tmp_path):
    for path in ("runs/last.pth", f"{tmp_path}/model"):
        assert "hf://" not in ckptconv("inspect", path).stderr


def test_names_of_releases_are_whole_on_a_narrow_terminal():
    shown = in_a_terminal("releases", "vicregl", COLUMNS="60", NO_COLOR="1")
    named = [release.name for _, release in registry.releases().values() if "vicregl" in release.name]
    assert len(named) > 5
    assert [line.split()[0] for line in shown.splitlines()[1:] if line.startswith("vicregl")] == named
