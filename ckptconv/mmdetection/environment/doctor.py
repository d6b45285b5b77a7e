"""What is installed, whether detection can run, and the commands that fix it.

`collect` asks the environment of this interpreter. `judge` turns the answers into a diagnosis, and reads nothing else;
the commands it advises are in `fixes`. Nothing is printed here, and neither torch nor mmengine is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ckptconv.arguments import argument
from ckptconv.mmdetection.environment import fixes
from ckptconv.mmdetection.environment.installed import Answer, Facts, collect

State = Literal["ok", "note", "bad"]
Loading = Literal["safe", "refuses", "runs code", "unknown"]

_REFUSED = re.compile(r"MMCV==(\S+) is used but incompatible")  # mmdet/__init__.py of MMDetection, and its version
_NEEDED = ("torch", "mmengine", "mmcv", "mmdet", "torchvision")


@dataclass(frozen=True)
class PackageStatus:
    """One package: ``bad`` needs a fix, ``note`` is good to know. ``commands`` fix it, in their order."""

    name: str
    version: str
    state: State
    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """All findings, how mmengine loads a checkpoint, and whether a detector can run."""

    findings: tuple[PackageStatus, ...]
    loading: Loading
    can_detect: bool

    @property
    def verdict(self) -> str:
        bad = [f.name for f in self.findings if f.state == "bad"]
        if not self.can_detect:
            return f"detection cannot run: {', '.join(n for n in bad if n in _NEEDED)}"
        return f"detection can run; to fix: {', '.join(bad)}" if bad else "detection can run"


def examine() -> Diagnosis:
    """The diagnosis of the environment of this interpreter."""
    return judge(collect())


def judge(facts: Facts) -> Diagnosis:
    """The diagnosis of the collected facts. A step without a fact counts as not run."""
    torch = _torch(facts)
    mmengine = _mmengine(facts, (torch,))
    mmcv = _mmcv(facts, (torch, mmengine))
    mmdet = _mmdet(facts, (torch, mmengine, mmcv))
    loading, how = _loading(facts, (torch, mmengine))
    machine = _answer(facts, "installed").found
    python = PackageStatus("python", machine.get("python", ""), "ok", machine.get("executable", ""))
    findings = (python, torch, mmengine, mmcv, mmdet, _setuptools(facts), _torchvision(facts), _timm(facts), how)
    return Diagnosis(findings, loading, not any(f.state == "bad" and f.name in _NEEDED for f in findings))


def _answer(facts: Facts, step: str) -> Answer:
    return facts.get(step, Answer(error="was not examined"))


def _distributions(facts: Facts, package: str) -> Mapping[str, str]:
    """Name and version of each distribution that provides a package: usually one, none if it is missing."""
    found: Mapping[str, str] = _answer(facts, "installed").found.get("packages", {}).get(package, {})
    return found


def _finding(
    facts: Facts, package: str, state: State, text: str, commands: tuple[str, ...] = (), known: str = ""
) -> PackageStatus:
    """The status of a package, with the distributions that provide it if that is not the usual one."""
    from_ = _distributions(facts, package)
    if len(from_) > 1:  # mmcv and mmcv-lite overwrite each other's files, and so do the forks
        text = f"{text} (there are two: {', '.join(f'{n} {v}' for n, v in from_.items())})"
        state = "note" if state == "ok" else state
    elif from_ and package not in from_:
        text = f"{text} (from {next(iter(from_))})"
    return PackageStatus(package, known or next(iter(from_.values()), ""), state, text, commands)


def _broken(
    facts: Facts, package: str, error: str, earlier: Sequence[PackageStatus], commands: tuple[str, ...], text: str = ""
) -> PackageStatus:
    """The status of a package that is missing, needs an earlier one, or fails by itself: then ``text`` says how."""
    if _is_absent(facts, package):
        return _finding(facts, package, "bad", "not installed", commands)
    for before in earlier:
        if before.state == "bad" and (f"No module named '{before.name}'" in error or error.endswith(before.text)):
            return _finding(facts, package, "bad", f"cannot be imported without {before.name}")
    return _finding(facts, package, "bad", text or error, commands)


def _torch(facts: Facts) -> PackageStatus:
    answer = _answer(facts, "torch")
    if answer.error:
        return _broken(facts, "torch", answer.error, (), fixes.torch(answer.error, _distributions(facts, "numpy")))
    cuda, gpus = answer.found["cuda"], answer.found["gpus"]
    has = f"CUDA {cuda}" if cuda else "no CUDA"
    if gpus:
        return _finding(facts, "torch", "ok", f"{has}, {', '.join(gpus)}", known=answer.found["version"])
    seen = f"{has}, but no GPU is seen" if cuda else has
    return _finding(facts, "torch", "note", f"{seen}: training needs a GPU", known=answer.found["version"])


def _mmengine(facts: Facts, earlier: Sequence[PackageStatus]) -> PackageStatus:
    error = _answer(facts, "mmengine").error
    if error:
        commands = fixes.openmmlab("mmengine", error, _distributions(facts, "mmengine"), _is_onedl(facts))
        return _broken(facts, "mmengine", error, earlier, commands)
    report = _answer(facts, "report").error
    if report and not _ends_the_report(facts):
        return _finding(facts, "mmengine", "bad", f"its environment report, which a run starts with, fails: {report}")
    return _finding(facts, "mmengine", "ok", "imports")


def _mmcv(facts: Facts, earlier: Sequence[PackageStatus]) -> PackageStatus:
    answer = _answer(facts, "mmcv")
    if answer.error:
        without = "'mmcv._ext'" in answer.error
        text = "was installed without its compiled ops" if without else f"its ops do not run: {answer.error}"
        return _broken(facts, "mmcv", answer.error, earlier, _mmcv_commands(facts), text)
    devices = f"ops run on {' and '.join(answer.found['devices'])}"
    version, onedl = next(iter(_distributions(facts, "mmcv").values()), ""), _is_onedl(facts)
    if version and not fixes.mmdet_takes(version, onedl) and not _compares(facts):
        return _finding(facts, "mmcv", "bad", f"{devices}, but {fixes.needed_mmcv(onedl)}", _mmcv_commands(facts))
    return _finding(facts, "mmcv", "ok", devices)


def _compares(facts: Facts) -> bool:
    """Whether the installed mmdet checks the version of mmcv: the fork does not."""
    return any(name == "mmdet" and version.startswith("3.") for name, version in _distributions(facts, "mmdet").items())


def _mmcv_commands(facts: Facts) -> tuple[str, ...]:
    machine = _answer(facts, "installed").found.get("machine", "")
    torch = _answer(facts, "torch").found
    return fixes.mmcv(machine, torch, _distributions(facts, "mmcv"), _is_onedl(facts))


def _mmdet(facts: Facts, earlier: Sequence[PackageStatus]) -> PackageStatus:
    own, mmcv, onedl = _distributions(facts, "mmdet"), earlier[-1], _is_onedl(facts)
    error = _answer(facts, "mmdet").error
    another = fixes.openmmlab("mmdet", "", own, onedl)
    # An mmdet that cannot be imported has not yet said that it refuses the mmcv that will be installed.
    too_old = another if mmcv.commands and not fixes.takes_advised_mmcv(own, onedl) else ()
    if refused := _REFUSED.search(error):
        commands = too_old if mmcv.state == "bad" else _fitting(facts, own, refused[1], another)
        return _finding(facts, "mmdet", "bad", error, commands)
    if "MMEngine==" in error:
        return _finding(facts, "mmdet", "bad", error, fixes.openmmlab("mmengine", "", {}, onedl))
    lacks_ops = _answer(facts, "models").error if mmcv.state == "bad" and not error else ""
    if lacks_ops and not too_old:
        return _finding(facts, "mmdet", "bad", "its models need the ops of mmcv")
    error = error or _answer(facts, "models").error
    if error:
        found = _broken(facts, "mmdet", error, earlier, fixes.openmmlab("mmdet", error, own, onedl))
        return replace(found, commands=too_old or found.commands)
    bases = _answer(facts, "bases").error
    if bases and "pkg_resources" not in bases:
        return _finding(facts, "mmdet", "note", f"imports, but mmengine does not find its configs as bases: {bases}")
    fits = " and ".join(f"{f.name} {f.version}" for f in earlier[1:])
    return _finding(facts, "mmdet", "ok", f"imports, fits {fits}")


def _fitting(facts: Facts, own: Mapping[str, str], mmcv: str, another: tuple[str, ...]) -> tuple[str, ...]:
    """For an mmdet that refuses a working mmcv: another mmdet if one takes it, which is quick; else another mmcv."""
    onedl = _is_onedl(facts)
    if fixes.mmdet_takes(mmcv, onedl):
        return another
    return (*_mmcv_commands(facts), *(() if fixes.takes_advised_mmcv(own, onedl) else another))


def _setuptools(facts: Facts) -> PackageStatus:
    bases = _answer(facts, "bases").error
    missing = _answer(facts, "pkg_resources").error
    if not bases:
        return _finding(facts, "setuptools", "ok", "bases such as 'mmdet::…' are found")
    if missing and not _is_onedl(facts):  # the forks find a package without pkg_resources
        without = argument("style", "flat")
        text = f"no pkg_resources, which mmengine needs for bases like 'mmdet::…' ({missing}); {without} needs no base"
        return _finding(facts, "setuptools", "bad", text, fixes.SETUPTOOLS)
    return _finding(facts, "setuptools", "ok", "not needed by mmengine" if missing else "has pkg_resources")


def _torchvision(facts: Facts) -> PackageStatus:
    error = _answer(facts, "torchvision").error
    if not error:
        return _finding(facts, "torchvision", "ok", "imports")
    needed = bool(_distributions(facts, "timm"))
    if _is_absent(facts, "torchvision") and not needed:
        return _finding(facts, "torchvision", "ok", "not installed, not needed")
    commands = fixes.torchvision(_answer(facts, "torch").found) if needed else fixes.TORCHVISION
    if _is_absent(facts, "torchvision"):
        return _finding(facts, "torchvision", "note", "not installed, and timm needs it", commands)
    if _ends_the_report(facts):
        text = f"its import breaks mmengine's environment report, which a run starts with: {error}"
        return _finding(facts, "torchvision", "bad", text, commands)
    return _finding(
        facts, "torchvision", "note", f"{'timm needs it' if needed else 'not needed'}, but broken: {error}", commands
    )


def _timm(facts: Facts) -> PackageStatus:
    error = _answer(facts, "timm").error
    if not _distributions(facts, "timm"):
        return _finding(facts, "timm", "ok", "not installed, needed for TimmBackbone only")
    if not error:
        return _finding(facts, "timm", "ok", "imports")
    if _answer(facts, "torchvision").error:
        return _finding(facts, "timm", "note", "cannot be imported without torchvision")
    return _finding(facts, "timm", "note", f"cannot be imported: {error}", fixes.TIMM)


def _loading(facts: Facts, earlier: Sequence[PackageStatus]) -> tuple[Loading, PackageStatus]:
    answer = _answer(facts, "loading")
    if answer.error:
        lacks = next((f.name for f in earlier if f.state == "bad"), "")
        return "unknown", PackageStatus("loading", "", "note", f"unknown without {lacks}" if lacks else answer.error)
    if answer.found["ran"]:
        text = "runs code: mmengine executes code from a checkpoint; the loader of ckptconv does not"
        return "runs code", PackageStatus("loading", "", "bad", text, fixes.LOADER)
    if answer.found["own"]:
        text = "refuses: mmengine cannot read the checkpoints it saves; the loader of ckptconv can, and runs no code"
        return "refuses", PackageStatus("loading", "", "note", text, fixes.LOADER)
    return "safe", PackageStatus(
        "loading", "", "ok", "safe: mmengine reads the checkpoints it saves and runs no code in one"
    )


def _ends_the_report(facts: Facts) -> bool:
    """Whether torchvision makes mmengine's environment report fail."""
    error = _answer(facts, "torchvision").error
    return bool(error) and error in _answer(facts, "report").error


def _is_absent(facts: Facts, package: str) -> bool:
    return package in _answer(facts, "installed").found.get("absent", ())


def _is_onedl(facts: Facts) -> bool:
    """Whether the forks are installed, or are the only stack that can be installed."""
    names = [name for package in ("mmdet", "mmengine", "mmcv") for name in _distributions(facts, package)]
    python = _answer(facts, "installed").found.get("python", "")
    lacks = any(_answer(facts, step).error for step in ("mmcv", "mmdet", "models"))
    return (bool(python) and lacks and not fixes.builds_mmcv(python)) or any(
        name.startswith("onedl-") for name in names
    )
