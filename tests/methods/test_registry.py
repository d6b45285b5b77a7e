"""Look-up of methods by name: built in, the caller's own, and those of other packages, sound and broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from ckptconv.errors import PluginWarning, UsageError
from ckptconv.methods import METHODS, registry
from ckptconv.methods.interface import Layout, Method
from ckptconv.rules import keep
from tests.support.cases import case

PLUGIN = Path(__file__).parent / "example_plugin"
MINE = Method("mine", "my own", (Layout((keep("{k...}", "{k...}"),), ("",)),))


def test_every_built_in_method_is_found_by_its_name() -> None:
    assert list(registry.methods()) == [m.name for m in METHODS]
    assert all(registry.named(m.name) == (m,) for m in METHODS)


def test_names_are_written_once() -> None:
    assert len({m.name for m in METHODS}) == len(METHODS)


def test_the_callers_own_come_first() -> None:
    assert registry.named("mine", [MINE]) == (MINE,)
    assert next(iter(registry.methods([MINE]))) == "mine"


def test_a_built_in_name_is_taken() -> None:
    taken = Method("moco", "my moco", MINE.layouts)
    for look in (lambda: registry.methods([taken]), lambda: registry.named("swav", [taken])):
        with pytest.raises(UsageError) as caught:
            look()
        assert caught.value.message == "the name 'moco' is a built-in method's"
        assert caught.value.hint == "Give your own method another name."


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("simsiamm", "Did you mean simsiam or simmim?"),
        ("minee", "Did you mean mine?"),
        ("aut", "Did you mean auto?"),
        ("barlowtwin", "Did you mean barlowtwins or barlow?"),
        ("", f"Known: auto, mine, {', '.join(m.name for m in METHODS)}."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.named(name, [MINE])
    assert caught.value.message == f"there is no method '{name}'"
    assert caught.value.hint == hint


# -- other packages ---------------------------------------------------------------------------------------------------


def package(folder: Path, entries: str, module: str = "") -> Path:
    """A package as pip leaves it in ``folder``: a module and its metadata."""
    info = folder / "some_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entries}\n", encoding="utf-8")
    (folder / f"{folder.name}_module.py").write_text(module, encoding="utf-8")
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python looks for packages in; its name is the test's own, so that no module is met twice."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


SOUND = """\
from ckptconv import Layout, Method, keep

LAYOUT = Layout((keep("{k...}", "{k...}"),), ("",))
ONE = Method("one", "one", (LAYOUT,))
BOTH = (ONE, Method("two", "two", (LAYOUT,)))
VIEW = {m.name: m for m in BOTH}.values()
TAKEN = Method("moco", "not MoCo", (LAYOUT,))
WRONG = (ONE, "two")
NUMBER = 3
"""


@pytest.mark.parametrize(
    ("attribute", "names"), [("ONE", ["one"]), ("BOTH", ["one", "two"]), ("VIEW", ["one", "two"]), ("TAKEN", [])]
)
def test_an_entry_point_brings_a_method_or_several_and_never_takes_a_built_in_name(
    site: Path, attribute: str, names: list[str]
) -> None:
    package(site, f"x = {site.name}_module:{attribute}", SOUND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if attribute == "TAKEN" else "error")
        assert list(registry.methods()) == [*(m.name for m in METHODS), *names]
        assert registry.methods()["moco"] in METHODS
        for name in names:
            assert [m.name for m in registry.named(name)] == [name]


@pytest.mark.parametrize(
    ("attribute", "module", "says", "kept"),
    [
        ("X", "raise RuntimeError('out of order')", "the method 'x' of {} cannot be loaded: out of order", []),
        ("X", "raise SystemExit('no more')", "the method 'x' of {} cannot be loaded: no more", []),
        ("X", "import no_such_module", "the method 'x' of {} cannot be loaded: No module named 'no_such_module'", []),
        ("X", "X = keep(", "the method 'x' of {} cannot be loaded: ", []),
        ("GONE", SOUND, "the method 'x' of {} cannot be loaded: module", []),
        ("NUMBER", SOUND, "the method 'x' of {} cannot be loaded: 'int' object is not iterable", []),
        ("WRONG", SOUND, "the entry point 'x' of {} is not a ckptconv Method", ["one"]),
        ("TAKEN", SOUND, "the method 'moco' of {} is left out: the name is taken", []),
        (
            "X",
            "from ckptconv import drop\nX = drop('a', '')",
            "the method 'x' of {} cannot be loaded: 'a' is dropped without a reason",
            [],
        ),
    ],
    ids=lambda value: value if value in ("GONE", "NUMBER", "WRONG", "TAKEN") else "",
)
def test_a_broken_package_is_named_and_blocks_nothing(
    site: Path, attribute: str, module: str, says: str, kept: list[str]
) -> None:
    package(site, f"x = {site.name}_module:{attribute}", module)
    with pytest.warns(PluginWarning) as caught:
        assert list(registry.methods()) == [*(m.name for m in METHODS), *kept]
    (text,) = (str(warning.message) for warning in caught)
    assert text.startswith(says.format("the package some-package"))
    assert text.splitlines()[-1] == "Repair or remove that package: pip uninstall some-package"


def test_a_broken_package_is_not_asked_for_a_built_in_method(site: Path) -> None:
    package(site, f"x = {site.name}_module:X", "raise RuntimeError('out of order')")
    assert registry.named("moco")[0] in METHODS


# -- from end to end --------------------------------------------------------------------------------------------------


def run(arguments: list[str], site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = filter(None, (str(site), os.environ.get("PYTHONPATH")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the example package; without the network, and built beside a copy of its source."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    done = run(["pip", "install", *quiet, "--target", str(folder / "site"), str(folder / "source")], folder, folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = {
        f"student.{name}": torch.full([n if n in (1, 3, 7) else n // 16 for n in spec.shape], i / 8)
        for i, (name, spec) in enumerate(case("torchvision_r18").tensors.items())
    }
    path = tmp_path_factory.mktemp("checkpoint") / "run.pth"
    torch.save({"state_dict": {**state, "student.head.mlp.0.weight": torch.ones(2, 2)}}, path)
    return path


def test_the_example_is_as_short_as_it_is_said_to_be() -> None:
    assert len((PLUGIN / "ckptconv_example.py").read_text(encoding="utf-8").splitlines()) <= 12


def test_an_installed_package_is_among_the_methods(installed: Path, tmp_path: Path) -> None:
    done = run(["ckptconv", "methods", "--json"], installed, tmp_path)
    assert done.returncode == 0, done.stderr
    listed = {m["name"]: m for m in json.loads(done.stdout)["methods"]}
    assert list(listed) == [*(m.name for m in METHODS), "example"]
    assert listed["example"]["layouts"][0]["rules"] == [
        "drop student.head.{p...} (the head)",
        "keep student.{key...} -> {key...}",
    ]


@pytest.mark.parametrize("selfsup", ["auto", "example"])
def test_an_installed_method_converts(installed: Path, checkpoint: Path, tmp_path: Path, selfsup: str) -> None:
    done = run(["ckptconv", "convert", str(checkpoint), "out.pth", "--selfsup", selfsup, "--json"], installed, tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["method"] == {"name": "example", "title": "an example", "named": selfsup == "example", "also": []}
    source = torch.load(checkpoint, weights_only=True)["state_dict"]
    written = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert set(written) == set(case("torchvision_r18").tensors)
    assert all(torch.equal(written[name], source[f"student.{name}"]) for name in written)


def test_a_method_that_is_not_installed_is_not_known(checkpoint: Path, tmp_path: Path) -> None:
    done = run(["ckptconv", "convert", str(checkpoint), "out.pth", "--selfsup", "example"], tmp_path, tmp_path)
    assert done.returncode == 2
    assert "there is no method 'example'" in done.stderr
    done = run(["ckptconv", "convert", str(checkpoint), "out.pth"], tmp_path, tmp_path)
    assert done.returncode == 1
    assert not (tmp_path / "out.pth").exists()


def test_a_broken_package_warns_and_the_command_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    module = "print('hello')\nraise RuntimeError('out of order')"
    package(tmp_path, f"x = {tmp_path.name}_module:X", module)
    said = (
        "hello\n"
        "warning: the method 'x' of the package some-package cannot be loaded: out of order\n"
        "hint: Repair or remove that package: pip uninstall some-package\n"
    )
    done = run(["ckptconv", "methods", "--json"], tmp_path, tmp_path)
    assert (done.returncode, done.stderr) == (0, said)
    assert [m["name"] for m in json.loads(done.stdout)["methods"]] == [m.name for m in METHODS]
    done = run(["ckptconv", "convert", str(checkpoint), "out.pth"], tmp_path, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{said}error: no method explains this file")
    done = run(["ckptconv", "convert", str(checkpoint), "out.pth", "--selfsup", "x"], tmp_path, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{said}error: there is no method 'x'\n")


# -- other names ------------------------------------------------------------------------------------------------------

SHARED = {
    "simclr": [
        *("mmselfsup", "lightly", "solo-learn", "bolts", "vissl"),
        *("simclr-sthalles", "simclr-spijkervet", "simclr-atanov", "simclr-tonylins", "simclrv2-separius"),
    ],
    "deepcluster": ["mmselfsup", "solo-learn", "vissl", "swav"],
    "deepcluster-v2": ["solo-learn", "vissl", "swav"],
    "convnext-v2": ["convnext", "fcmae"],
    "nnclr": ["lightly", "solo-learn"],
    "npid": ["mmselfsup", "vissl"],
    "pirl": ["vissl", "pycontrast"],
}
"""The aliases that stand for several methods, on purpose."""


def test_an_alias_is_one_method_s_or_shared_on_purpose() -> None:
    owners: dict[str, list[str]] = {}
    for m in METHODS:
        assert len({plain(alias) for alias in m.aliases}) == len(m.aliases)
        for alias in m.aliases:
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", alias)
            owners.setdefault(plain(alias), []).append(m.name)
    assert {alias: names for alias, names in owners.items() if len(names) > 1} == {
        plain(alias): names for alias, names in SHARED.items()
    }
    names = [plain(m.name) for m in METHODS]
    assert len(set(names)) == len(names)
    assert not {*names, "auto"} & set(owners)


def plain(name: str) -> str:
    return name.replace("-", "")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mocov2", "moco"),
        ("moco_v2", "moco"),
        ("MoCo", "moco"),
        ("MoCo v2", "moco"),
        ("MOCO-V1", "moco"),
        ("moco-v3", "mocov3"),
        ("barlow_twins", "barlowtwins"),
        ("Barlow Twins", "barlowtwins"),
        ("dinov1", "dino"),
        ("DINO_v2", "dinov2"),
        ("dinostudent", "dino-student"),
        ("SimSiam", "simsiam"),
        ("i-jepa", "ijepa"),
        ("MixMAE", "mixmim"),
        ("BYOL", "byol"),
        ("MAE", "mae"),
        ("beit_v2", "beitv2"),
        ("eva-01", "eva"),
        ("sololearn", "solo-learn"),
        ("mmpretrain", "mmselfsup"),
        ("sela_v2", "swav"),
        ("simclr_v2", "simclrv2-separius"),
    ],
)
def test_names_are_found_as_people_type_them(typed: str, meant: str) -> None:
    assert [m.name for m in registry.named(typed)] == [meant]


@pytest.mark.parametrize("alias", SHARED)
def test_a_shared_alias_stands_for_each_of_its_methods(alias: str) -> None:
    assert [m.name for m in registry.named(alias.upper())] == SHARED[alias]


def test_an_alias_of_another_package_is_found_and_takes_no_name(site: Path) -> None:
    package(site, f"x = {site.name}_module:X", SOUND + 'X = Method("x", "x", (LAYOUT,), aliases=("ex", "moco"))')
    assert [m.name for m in registry.named("Ex")] == ["x"]
    assert [m.name for m in registry.named("MoCo")] == ["moco"]


def test_auto_may_be_spelled_as_well() -> None:
    assert all(map(registry.is_auto, ("auto", "Auto", "AUTO")))
    assert not any(map(registry.is_auto, ("automatic", "", None, MINE)))
