"""The doctor on this machine, on machines that were broken for the test, and on facts of machines that are not here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from ckptconv.mmdetection.environment import doctor, probe
from ckptconv.mmdetection.environment import installed as collecting
from ckptconv.mmdetection.environment.doctor import Diagnosis, PackageStatus, judge
from ckptconv.mmdetection.environment.installed import Answer, collect

BUILD = (
    "pip install --no-cache-dir --no-build-isolation --no-binary mmcv 'mmcv==2.1.0'  # from source, about ten minutes"
)
FORK = BUILD.replace("--no-binary mmcv 'mmcv==2.1.0'", "--no-binary onedl-mmcv 'onedl-mmcv==2.3.6'")
TOOLS = "pip install 'setuptools<82' wheel ninja"
LOADER = "custom_imports = dict(imports=['ckptconv.mmdetection.loader'])  # in the config; emit-config writes it"
UNPICKLING = "UnpicklingError: Weights only load failed."


def healthy(**changes: Answer) -> dict[str, Answer]:
    """Facts of a machine with a GPU on which all is well, but for the changes."""
    versions = {"torch": "2.1.2", "numpy": "1.26.4", "mmengine": "0.10.7", "mmcv": "2.1.0", "mmdet": "3.3.0"}
    packages = {p: {p: v} for p, v in {**versions, "setuptools": "65.5.0"}.items()} | {"torchvision": {}}
    facts = dict.fromkeys(probe.STEPS, Answer())
    facts["installed"] = machine(packages)
    facts["torch"] = torch("2.1.2+cu121", cuda="12.1", gpus=["NVIDIA H100"])
    facts["mmcv"] = Answer({"devices": ["cpu", "cuda"]})
    facts["torchvision"] = Answer(error="ModuleNotFoundError: No module named 'torchvision'")
    facts["loading"] = Answer({"own": "", "ran": True})
    return {**facts, **changes}


def machine(packages: dict[str, dict[str, str]], name: str = "Linux x86_64") -> Answer:
    absent = [name for name, versions in packages.items() if not versions]
    where = {"python": "3.11.7", "executable": "/v/bin/python", "machine": name}
    return Answer({**where, "packages": packages, "absent": absent})


def torch(version: str, cuda: str | None = None, gpus: list[str] | None = None, nvcc: bool = False) -> Answer:
    return Answer({"version": version, "cuda": cuda, "gpus": gpus or [], "nvcc": nvcc})


def fails(error: str) -> Answer:
    return Answer(error=error)


def missing(name: str) -> Answer:
    return fails(f"ModuleNotFoundError: No module named '{name}'")


def finding(found: Diagnosis, name: str) -> PackageStatus:
    (one,) = (f for f in found.findings if f.name == name)
    return one


def without(package: str) -> Answer:
    packages = healthy()["installed"].found["packages"]
    return machine({**packages, package: {}})


def provided_by(**packages: dict[str, str]) -> Answer:
    return machine({**healthy()["installed"].found["packages"], **packages})


# Facts of other machines


def test_a_machine_on_which_all_is_well():
    found = judge(healthy(loading=Answer({"own": "", "ran": False})))
    assert (found.can_detect, found.loading, found.verdict) == (True, "safe", "detection can run")
    assert [(f.name, f.version, f.state, f.text, f.commands) for f in found.findings] == [
        ("python", "3.11.7", "ok", "/v/bin/python", ()),
        ("torch", "2.1.2+cu121", "ok", "CUDA 12.1, NVIDIA H100", ()),
        ("mmengine", "0.10.7", "ok", "imports", ()),
        ("mmcv", "2.1.0", "ok", "ops run on cpu and cuda", ()),
        ("mmdet", "3.3.0", "ok", "imports, fits mmengine 0.10.7 and mmcv 2.1.0", ()),
        ("setuptools", "65.5.0", "ok", "bases such as 'mmdet::…' are found", ()),
        ("torchvision", "", "ok", "not installed, not needed", ()),
        ("timm", "", "ok", "not installed, needed for TimmBackbone only", ()),
        ("loading", "", "ok", "safe: mmengine reads the checkpoints it saves and runs no code in one", ()),
    ]


EXT = missing("mmcv._ext")


@pytest.mark.parametrize(
    ("changes", "name", "text", "commands"),
    [
        ({"mmcv": EXT, "models": EXT}, "mmcv", "was installed without its compiled ops",
         ("pip uninstall -y mmcv", "pip install -U openmim 'setuptools<82'", "mim install 'mmcv==2.1.0'")),
        ({"mmcv": EXT, "models": EXT}, "mmdet", "its models need the ops of mmcv", ()),
        ({"mmcv": EXT, "torch": torch("2.1.2+cpu")}, "mmcv", "was installed without its compiled ops",
         ("pip uninstall -y mmcv", "pip install -U openmim 'setuptools<82'", "mim install 'mmcv==2.1.0'")),
        ({"mmcv": EXT, "torch": torch("2.1.2+cu130", cuda="13.0")}, "mmcv", "was installed without its compiled ops",
         ("pip uninstall -y mmcv", TOOLS, f"MMCV_WITH_OPS=1 {BUILD}")),
        ({"mmcv": EXT, "torch": torch("2.11.0+cu130", cuda="13.0", nvcc=True)},
         "mmcv", "was installed without its compiled ops",
         ("pip uninstall -y mmcv", TOOLS, f"MMCV_WITH_OPS=1 FORCE_CUDA=1 {BUILD}")),
        ({"mmcv": fails("RuntimeError: nms on cuda: nms_impl: implementation for device cuda:0 not found."),
          "torch": torch("2.11.0+cu130", cuda="13.0", gpus=["NVIDIA H100"])},
         "mmcv",
         "its ops do not run: RuntimeError: nms on cuda: nms_impl: implementation for device cuda:0 not found.",
         ("pip uninstall -y mmcv", TOOLS, f"MMCV_WITH_OPS=1 FORCE_CUDA=1 {BUILD}, needs nvcc 13.0")),
        ({"mmcv": missing("mmcv"), "installed": without("mmcv"), "torch": torch("2.13.0+cpu")},
         "mmcv", "not installed", (TOOLS, f"MMCV_WITH_OPS=1 {BUILD}")),
        ({"mmcv": EXT, "installed": provided_by(mmcv={"mmcv-lite": "2.1.0"})},
         "mmcv", "was installed without its compiled ops (from mmcv-lite)",
         ("pip uninstall -y mmcv-lite", "pip install -U openmim 'setuptools<82'", "mim install 'mmcv==2.1.0'")),
        ({"mmcv": EXT, "installed": provided_by(mmcv={"onedl-mmcv": "2.3.6"})},
         "mmcv", "was installed without its compiled ops (from onedl-mmcv)",
         ("pip uninstall -y onedl-mmcv", "pip install -U onedl-mim", "mim install onedl-mmcv")),
        ({"mmcv": EXT, "installed": provided_by(mmcv={"onedl-mmcv": "2.3.6"}), "torch": torch("2.13.0+cpu")},
         "mmcv", "was installed without its compiled ops (from onedl-mmcv)",
         ("pip uninstall -y onedl-mmcv", TOOLS, f"MMCV_WITH_OPS=1 {FORK}")),
        ({"mmdet": fails("AssertionError: MMEngine==0.6.0 is used but incompatible. Please install …")},
         "mmdet", "AssertionError: MMEngine==0.6.0 is used but incompatible. Please install …",
         ("pip install 'mmengine==0.10.7'",)),
        ({"mmdet": fails("AssertionError: MMCV==2.1.0 is used but incompatible."),
          "installed": provided_by(mmdet={"mmdet": "2.28.2"})},
         "mmdet", "AssertionError: MMCV==2.1.0 is used but incompatible.",
         ("pip uninstall -y mmdet", "pip install 'mmdet==3.3.0'")),
        ({"mmdet": missing("mmdet"), "installed": without("mmdet")},
         "mmdet", "not installed", ("pip install 'mmdet==3.3.0'",)),
        ({"models": missing("pycocotools")}, "mmdet", "ModuleNotFoundError: No module named 'pycocotools'",
         ("pip install 'mmdet==3.3.0'",)),
        ({"mmengine": missing("mmengine"), "installed": provided_by(mmengine={}, mmdet={"onedl-mmdetection": "3.5.1"})},
         "mmengine", "not installed", ("pip install 'onedl-mmengine==0.10.12'",)),
        ({"mmengine": fails("ImportError: libGL.so.1: cannot open shared object file: No such file or directory")},
         "mmengine", "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
         ("pip uninstall -y opencv-python", "pip install --force-reinstall opencv-python-headless")),
        ({"report": fails("OSError: no gcc")},
         "mmengine", "its environment report, which a run starts with, fails: OSError: no gcc", ()),
        ({"torch": fails("RuntimeError: Numpy is not available")},
         "torch", "RuntimeError: Numpy is not available", ("pip install 'numpy<2'",)),
        ({"torch": fails("RuntimeError: Numpy is not available"), "installed": without("numpy")},
         "torch", "RuntimeError: Numpy is not available", ("pip install numpy",)),
        ({"torch": fails("the process was ended by SIGILL")},
         "torch", "the process was ended by SIGILL", ("pip install --force-reinstall torch",)),
    ],
)  # fmt: skip
def test_what_keeps_a_detector_from_running(changes, name, text, commands):
    found = judge(healthy(**changes))
    assert finding(found, name) == PackageStatus(name, finding(found, name).version, "bad", text, commands)
    assert not found.can_detect
    assert re.fullmatch(rf"detection cannot run: (\w+, )*{name}(, \w+)*", found.verdict)


@pytest.mark.parametrize(
    ("changes", "name", "state", "text", "commands"),
    [
        ({"torch": torch("2.13.0+cpu")}, "torch", "note", "no CUDA: training needs a GPU", ()),
        ({"torch": torch("2.13.0+cu130", cuda="13.0")},
         "torch", "note", "CUDA 13.0, but no GPU is seen: training needs a GPU", ()),
        ({"installed": provided_by(mmcv={"mmcv": "2.1.0", "mmcv-lite": "2.0.1"})},
         "mmcv", "note", "ops run on cpu and cuda (there are two: mmcv 2.1.0, mmcv-lite 2.0.1)", ()),
        ({"installed": provided_by(mmdet={"onedl-mmdetection": "3.5.1"})},
         "mmdet", "ok", "imports, fits mmengine 0.10.7 and mmcv 2.1.0 (from onedl-mmdetection)", ()),
        ({"bases": fails("FileNotFoundError: x")},
         "mmdet", "note", "imports, but mmengine does not find its configs as bases: FileNotFoundError: x", ()),
        ({"bases": missing("mmdet"), "pkg_resources": missing("pkg_resources"),
          "installed": provided_by(mmengine={"onedl-mmengine": "0.10.12"})},
         "setuptools", "ok", "not needed by mmengine", ()),
        ({"bases": missing("mmdet")}, "setuptools", "ok", "has pkg_resources", ()),
        ({"torchvision": fails("RuntimeError: x"), "installed": provided_by(torchvision={"torchvision": "0.16.2"})},
         "torchvision", "note", "not needed, but broken: RuntimeError: x", ("pip uninstall -y torchvision",)),
        ({"torchvision": Answer(), "installed": provided_by(torchvision={"torchvision": "0.16.2"})},
         "torchvision", "ok", "imports", ()),
    ],
)  # fmt: skip
def test_what_is_good_to_know(changes, name, state, text, commands):
    found = judge(healthy(**changes))
    one = finding(found, name)
    assert (one.state, one.text, one.commands) == (state, text, commands)
    assert found.can_detect


# Commands that lead somewhere: what mmdet/__init__.py of each release asserts of mmcv; the forks assert nothing

ASSERTED = {
    "mmdet 2.28.2": ">=1.3.17,<=1.8.0",
    "mmdet 3.0.0": ">=2.0.0rc4,<2.1.0",
    "mmdet 3.1.0": ">=2.0.0rc4,<2.1.0",
    "mmdet 3.2.0": ">=2.0.0rc4,<2.2.0",
    "mmdet 3.3.0": ">=2.0.0rc4,<2.2.0",
    "onedl-mmdetection 3.5.1": ">=2.0.0rc4",
}
MMCVS = ("mmcv-full 1.7.2", "mmcv 2.0.1", "mmcv 2.1.0", "mmcv 2.2.0", "mmcv-lite 2.1.0", "onedl-mmcv 2.3.6", "")


def facts_with(mmdet: str, mmcv: str, ops: bool, python: str, pytorch: Answer) -> dict[str, Answer]:
    """Facts as such a machine gives them. ``mmdet`` and ``mmcv`` are a distribution and its version, or nothing."""
    there = {"mmengine": "mmengine 0.10.7", "mmdet": mmdet, "mmcv": mmcv}
    packages = {**healthy()["installed"].found["packages"], **{p: dict([d.split()]) for p, d in there.items() if d}}
    packages |= {p: {} for p, d in there.items() if not d}
    facts = healthy(installed=machine(packages), torch=pytorch)
    facts["installed"] = Answer({**facts["installed"].found, "python": python})
    if not mmcv or not ops:
        facts["mmcv"] = facts["models"] = EXT if mmcv else missing("mmcv")
    if not mmdet or not mmcv:
        facts["mmdet"] = facts["models"] = missing("mmcv" if mmdet else "mmdet")
    elif (version := mmcv.split()[1]) not in SpecifierSet(ASSERTED[mmdet]):
        facts["mmdet"] = facts["models"] = fails(f"AssertionError: MMCV=={version} is used but incompatible. Please …")
    elif mmdet.startswith("mmdet 2"):
        facts["models"] = fails("AttributeError: module 'mmdet.utils' has no attribute 'register_all_modules'")
    return facts


def after(commands: list[str], mmdet: str, mmcv: str) -> tuple[str, str, list[str]]:
    """What is there when the commands have been typed, and what they installed."""
    there, installed = [mmdet, mmcv], []
    for command in commands:
        words = shlex.split(command, comments=True)
        if "uninstall" in words:
            there = [d for d in there if d and d.split()[0] not in words]
        elif "install" in words:
            latest = {"onedl-mmcv": "onedl-mmcv==2.3.6"} if words[0] == "mim" else {}
            installed += [w.replace("==", " ") for w in (latest.get(w, w) for w in words) if re.match(".*mm.*==", w)]
    there = [*(d for d in there if d), *installed]
    assert len(there) <= 2, "two of one kind overwrite each other's files"
    return *(next((d for d in there if kind in d), "") for kind in ("mmdet", "mmcv")), installed


@pytest.mark.parametrize("python", ["3.11.7", "3.13.1"])
@pytest.mark.parametrize("pytorch", [torch("2.1.2+cpu"), torch("2.13.0+cpu"), torch("2.8.0+cu129", cuda="12.9")])
@pytest.mark.parametrize("mmdet", [*ASSERTED, ""])
def test_the_commands_make_a_stack_that_fits(mmdet, pytorch, python):
    for mmcv, ops in itertools.product(MMCVS, (True, False)):
        ops = ops and not mmcv.startswith("mmcv-lite")
        found = judge(facts_with(mmdet, mmcv, ops, python, pytorch))
        commands = [command for f in found.findings if f.name in ("mmcv", "mmdet") for command in f.commands]
        assert bool(commands) != found.can_detect, (mmcv, ops)
        now = after(commands, mmdet, mmcv)
        if ops:
            assert not {mmdet, mmcv} & set(now[2]), "what is there and whole is not installed again"
        assert now[0], (mmcv, ops)
        assert now[1], (mmcv, ops)
        assert now[1].split()[1] in SpecifierSet(ASSERTED[now[0]]), (mmcv, ops, commands)
        if python.startswith("3.13"):
            assert "mmcv 2.1.0" not in now[2], "its setup.py fails there"
        again = judge(facts_with(now[0], now[1], True, python, pytorch))
        assert (again.can_detect, again.verdict) == (True, "detection can run; to fix: loading"), (mmcv, ops, commands)


@pytest.mark.parametrize(
    ("mmdet", "mmcv", "commands"),
    [
        ("mmdet 3.0.0", "mmcv 2.1.0", ("pip uninstall -y mmdet", "pip install 'mmdet==3.3.0'")),
        ("mmdet 3.1.0", "mmcv 2.1.0", ("pip uninstall -y mmdet", "pip install 'mmdet==3.3.0'")),
        ("mmdet 3.3.0", "onedl-mmcv 2.3.6", ("pip uninstall -y mmdet", "pip install 'onedl-mmdetection==3.5.1'")),
        ("mmdet 3.3.0", "mmcv 2.2.0", ("pip uninstall -y mmcv", TOOLS, f"MMCV_WITH_OPS=1 {BUILD}")),
        ("mmdet 3.0.0", "mmcv 2.2.0",
         ("pip uninstall -y mmcv", TOOLS, f"MMCV_WITH_OPS=1 {BUILD}",
          "pip uninstall -y mmdet", "pip install 'mmdet==3.3.0'")),
        ("mmdet 3.0.0", "", ("pip uninstall -y mmdet", "pip install 'mmdet==3.3.0'")),
    ],
)  # fmt: skip
def test_an_mmdet_that_does_not_take_its_mmcv(mmdet, mmcv, commands):
    found = judge(facts_with(mmdet, mmcv, True, "3.11.7", torch("2.13.0+cpu")))
    assert finding(found, "mmdet").commands == commands
    assert finding(found, "mmdet").state == "bad"


def test_an_mmcv_of_mmdetection_2():
    found = judge(facts_with("mmdet 2.28.2", "mmcv-full 1.7.2", True, "3.11.7", torch("2.13.0+cpu")))
    one = finding(found, "mmcv")
    wanted = "ops run on cpu and cuda, but mmdet 3.3.0 needs mmcv>=2.0.0rc4, <2.2.0 (from mmcv-full)"
    assert (one.state, one.text) == ("bad", wanted)
    assert one.commands == ("pip uninstall -y mmcv-full", TOOLS, f"MMCV_WITH_OPS=1 {BUILD}")


def test_a_python_for_which_mmcv_is_not_built():
    found = judge(facts_with("mmdet 3.3.0", "", True, "3.13.1", torch("2.13.0+cpu")))
    assert finding(found, "mmcv").commands == (TOOLS, f"MMCV_WITH_OPS=1 {FORK}")
    assert finding(found, "mmdet").commands == ("pip uninstall -y mmdet", "pip install 'onedl-mmdetection==3.5.1'")


def test_what_is_missing_is_said_once():
    lacks = missing("torch")
    steps = dict.fromkeys(("torch", "mmengine", "mmcv", "mmdet", "models", "report", "loading"), lacks)
    found = judge(healthy(installed=without("torch"), **steps))
    assert finding(found, "torch").commands == ("pip install torch",)
    for name in ("mmengine", "mmcv", "mmdet"):
        assert (finding(found, name).text, finding(found, name).commands) == ("cannot be imported without torch", ())
    assert (found.loading, finding(found, "loading").text) == ("unknown", "unknown without torch")
    assert found.verdict == "detection cannot run: torch, mmengine, mmcv, mmdet"


def test_nothing_collected_is_no_diagnosis_of_health():
    found = judge({})
    assert not found.can_detect
    assert found.verdict == "detection cannot run: torch, mmengine, mmcv, mmdet, torchvision"


# This machine, and this machine with one thing broken


@pytest.fixture(scope="module")
def here():
    return collect()


def shadow(folder: Path, package: str, monkeypatch: pytest.MonkeyPatch, hide: str = "", **files: str) -> None:
    """The installed package before itself on the path, less what begins with ``hide``, and with other ``files``."""
    place = folder / package
    place.mkdir()
    spec = importlib.util.find_spec(package)
    assert spec
    for entry in Path(spec.origin or "").parent.iterdir():
        if not (hide and entry.name.startswith(hide)) and entry.stem not in files:
            (place / entry.name).symlink_to(entry)
    for name, text in files.items():
        (place / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def broken(folder: Path, module: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of this name that does this when it is imported."""
    (folder / f"{module}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.mmdet
def test_this_machine(here):
    found = judge(here)
    assert found.can_detect
    assert found.loading == "refuses"
    assert finding(found, "loading").commands == (LOADER,)
    assert finding(found, "mmdet").text.startswith("imports, fits mmengine 0.10.7 and mmcv 2.1.0")
    assert here["loading"].found["own"].startswith(UNPICKLING)
    assert set(here) == set(probe.STEPS)
    assert {step for step, answer in here.items() if answer.error} <= {"torchvision", "timm"}


@pytest.mark.mmdet
def test_mmcv_with_a_version_that_mmdet_refuses(here, tmp_path, monkeypatch):
    spec = importlib.util.find_spec("mmcv.version")
    assert spec
    version = Path(spec.origin or "").read_text()
    shadow(tmp_path, "mmcv", monkeypatch, version=version.replace("'2.1.0'", "'2.2.0'"))
    found = judge({**here, **collect([["mmcv", "mmdet", "models"]])})
    assert finding(found, "mmcv").state == "ok"
    one = finding(found, "mmdet")
    said = "AssertionError: MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, <2.2.0."
    assert (one.state, one.text) == ("bad", said)
    assert one.commands[0] == "pip uninstall -y mmcv"
    assert "'mmcv==2.1.0'" in one.commands[-1]
    assert found.verdict == "detection cannot run: mmdet"


@pytest.mark.mmdet
def test_setuptools_without_pkg_resources(here, tmp_path, monkeypatch):
    broken(tmp_path, "pkg_resources", "raise ModuleNotFoundError(\"No module named 'pkg_resources'\")", monkeypatch)
    found = judge({**here, **collect([["bases", "pkg_resources"]])})
    one = finding(found, "setuptools")
    assert (one.state, one.commands) == ("bad", ("pip install 'setuptools<82'",))
    assert one.text == (
        "no pkg_resources, which mmengine needs for bases like 'mmdet::…' "
        "(ModuleNotFoundError: No module named 'pkg_resources'); `style='flat'` needs no base"
    )
    assert finding(found, "mmdet").state == "ok"
    assert (found.can_detect, found.verdict) == (True, "detection can run; to fix: setuptools")


@pytest.mark.mmdet
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')",
         "RuntimeError: operator torchvision::nms does not exist"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process was ended by SIGSEGV"),
    ],
)  # fmt: skip
def test_a_torchvision_that_ends_the_run(here, tmp_path, monkeypatch, code, error):
    broken(tmp_path, "torchvision", code, monkeypatch)
    found = judge({**here, **collect([["installed", "torchvision", "pkg_resources"], ["report", "bases"]])})
    one = finding(found, "torchvision")
    assert one.text == f"its import breaks mmengine's environment report, which a run starts with: {error}"
    assert (one.state, one.commands) == ("bad", ("pip uninstall -y torchvision",))
    assert found.verdict == "detection cannot run: torchvision"
    assert finding(found, "setuptools").state == "ok", "what is behind a crash is examined all the same"


@pytest.mark.mmdet
def test_a_torch_that_is_forced_to_run_code(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    found = judge(healthy(**collect([["loading"]])))
    one = finding(found, "loading")
    assert (found.loading, one.state, one.commands) == ("runs code", "bad", (LOADER,))
    assert one.text == "runs code: mmengine executes code from a checkpoint; the loader of ckptconv does not"
    assert (found.can_detect, found.verdict) == (True, "detection can run; to fix: loading")


@pytest.mark.mmdet
def test_the_advised_loader_fixes_the_loading(tmp_path, monkeypatch):
    broken(tmp_path, "sitecustomize", "import ckptconv.mmdetection.loader", monkeypatch)
    assert judge(healthy(**collect([["loading"]]))).loading == "safe"


def test_a_fork_whose_files_python_310_does_not_know(monkeypatch, tmp_path):
    """Its `packages_distributions` reads top_level.txt alone, which the wheel of onedl-mmengine lacks."""
    there = {"onedl-mmengine": "0.10.12", "mmcv": "2.1.0"}

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "packages_distributions", dict)
    monkeypatch.setattr(importlib.metadata, "version", version)
    packages = probe.installed(tmp_path)["packages"]
    assert (packages["mmengine"], packages["mmcv"]) == ({"onedl-mmengine": "0.10.12"}, {"mmcv": "2.1.0"})


def test_an_interpreter_with_nothing_installed(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "v/bin/python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = doctor.examine()
    assert found.verdict == "detection cannot run: torch, mmengine, mmcv, mmdet"
    assert [f.text for f in found.findings[:3]] == [sys.executable, "not installed", "not installed"]
    commands = [command for f in found.findings for command in f.commands]
    assert commands == [
        "pip install torch",
        "pip install 'mmengine==0.10.7'",
        TOOLS,
        f"MMCV_WITH_OPS=1 {BUILD}",
        "pip install 'mmdet==3.3.0'",
        "pip install 'setuptools<82'",
    ]


def test_a_package_that_never_ends_its_import_or_ends_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "_SECONDS", 5.0)
    broken(tmp_path, "pkg_resources", "import time; time.sleep(60)", monkeypatch)
    broken(tmp_path, "torchvision", "import os; os._exit(3)", monkeypatch)
    broken(tmp_path, "torch", "raise SystemExit(4)", monkeypatch)
    found = collect([["torchvision", "torch", "pkg_resources"], ["installed"]])
    assert found["pkg_resources"].error == "did not end within 5 s"
    assert found["torchvision"].error == "the process ended with exit code 3"
    assert found["torch"].error == "SystemExit: 4"
    assert found["installed"].error == ""


def test_the_folder_one_stands_in_is_not_imported_from(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('from here')")
    monkeypatch.chdir(tmp_path)
    assert "from here" not in collect([["torchvision"]])["torchvision"].error


def test_examining_imports_neither_torch_nor_mmengine():
    code = (
        "import sys; from ckptconv.mmdetection.environment.installed import collect; collect([['installed']]); "
        "print([m for m in ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# timm and the torchvision that it imports


def with_timm(installed: dict[str, str], **changes: Answer) -> Diagnosis:
    return judge(healthy(installed=provided_by(timm={"timm": "1.0.31"}, torchvision=installed), **changes))


def test_timm_and_its_torchvision():
    found = with_timm({"torchvision": "0.16.2"}, torchvision=Answer())
    assert [(f.version, f.state, f.text) for f in found.findings if f.name in ("torchvision", "timm")] == [
        ("0.16.2", "ok", "imports"),
        ("1.0.31", "ok", "imports"),
    ]


@pytest.mark.parametrize(
    ("torchvision", "version", "cuda", "text", "command"),
    [
        ({}, "2.13.0", None, "not installed, and timm needs it",
         "pip install --force-reinstall --no-deps 'torchvision==0.28.*' --index-url https://download.pytorch.org/whl/cpu"),
        ({"torchvision": "0.28.0"}, "2.0.1+cu118", "11.8", "timm needs it, but broken: RuntimeError: x",
         "pip install --force-reinstall --no-deps 'torchvision==0.15.*'"),
    ],
)  # fmt: skip
def test_timm_without_a_torchvision_that_imports(torchvision, version, cuda, text, command):
    error = "RuntimeError: x" if torchvision else "ModuleNotFoundError: No module named 'torchvision'"
    found = with_timm(torchvision, torch=torch(version, cuda=cuda), torchvision=fails(error), timm=fails(error))
    one, other = finding(found, "torchvision"), finding(found, "timm")
    assert (one.state, one.text, one.commands) == ("note", text, (command,))
    assert (other.state, other.text, other.commands) == ("note", "cannot be imported without torchvision", ())
    assert found.can_detect


def test_a_timm_that_is_broken_by_itself():
    found = with_timm({"torchvision": "0.16.2"}, torchvision=Answer(), timm=fails("ImportError: x"))
    one = finding(found, "timm")
    assert (one.state, one.text) == ("note", "cannot be imported: ImportError: x")
    assert one.commands == ("pip install 'timm==1.0.31'",)


# The command


def ckptconv(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ckptconv", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=300)


@pytest.mark.mmdet
def test_the_command_in_json_where_all_is_well():
    done = ckptconv("doctor", "--json")
    data = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (data["schema"], data["command"], data["can_detect"], data["loading"]) == (2, "doctor", True, "refuses")
    assert data["verdict"] == "detection can run"
    names = ["python", "torch", "mmengine", "mmcv", "mmdet", "setuptools", "torchvision", "timm", "loading"]
    assert [f["name"] for f in data["findings"]] == names
    assert data["findings"][3].keys() == {"name", "version", "state", "text", "commands"}
    assert data["findings"][3]["version"] == "2.1.0"


@pytest.mark.mmdet
def test_the_command_where_mmcv_has_no_ops(tmp_path, monkeypatch):
    shadow(tmp_path, "mmcv", monkeypatch, hide="_ext")
    done = ckptconv("doctor")
    assert (done.returncode, done.stderr) == (4, "")
    lines = done.stdout.splitlines()
    at = lines.index("mmcv        2.1.0, was installed without its compiled ops")
    assert lines[at + 1] == "  fix       pip uninstall -y mmcv"
    assert "'mmcv==2.1.0'" in lines[at + 3]
    assert lines[at + 4] == "mmdet       3.3.0, its models need the ops of mmcv"
    assert lines[-1] == "verdict     detection cannot run: mmcv, mmdet"
