"""The report as data: what the module documents of ``report.json``, what is read back, and MMDetection's table."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckptconv.errors import UnreadableError
from ckptconv.mmdetection.verify.compare_ap import Expected, Verdict
from ckptconv.mmdetection.verify.make_report import collect
from ckptconv.mmdetection.verify.measure import NAMES, Measured
from ckptconv.mmdetection.verify.plan import SMOKE, VerificationPlan
from ckptconv.mmdetection.verify.report import report as reporting
from ckptconv.mmdetection.verify.report.markdown import markdown, mean
from ckptconv.mmdetection.verify.report.report import LoadProof, VerificationReport, as_json, from_json
from ckptconv.mmdetection.verify.report.write import write
from ckptconv.mmdetection.verify.request import Request
from ckptconv.mmdetection.verify.run.files import Job, Run
from ckptconv.mmdetection.verify.run.launch import Launch

pytestmark = pytest.mark.mmdet

# https://github.com/open-mmlab/mmdetection/blob/v3.3.0/configs/selfsup_pretrain/README.md
COLUMNS = "| Method | Backbone | Style | Lr schd | Mem (GB) | Inf time (fps) | box AP | mask AP | Config | Download |"
PROOF = LoadProof(120, 120, "r18.pth", "ab" * 32, "moco", "ResNet-18")
PASSED = Verdict("pass", ("box AP 38.00, expected 38",), "box AP 38, at most 0.3 points below (noise)")
CONFIG = {
    "model": {"type": "MaskRCNN", "backbone": {"type": "ResNet", "style": "caffe"}},
    "train_cfg": {"max_epochs": 12},
    "optim_wrapper": {"optimizer": {"lr": 0.02}},
}


def planned(folder: Path, *names: str, **changed: Any) -> VerificationPlan:
    """A plan of runs that have these names, 'ARM-seedN' or 'seedN', each with the files that its processes leave."""
    (folder / "val.json").write_text("{}")
    config = {**CONFIG, "val_evaluator": {"ann_file": str(folder / "val.json")}}
    runs = tuple(ran(folder, name, config) for name in names)
    request = changed.pop("request", Request("target.py", "smoke"))
    expected = Expected({"box": 38.0, "mask": 34.0}, 0.3, "noise", "a table")
    made = VerificationPlan(
        request, "a title", folder, config, None, None, "d1gest", 16, Launch("none", 0), runs, expected, SMOKE, ()
    )
    return replace(made, **changed)


def ran(folder: Path, name: str, config: dict[str, Any]) -> Run:
    result = {"iterations": 3, "images_per_second": 2.5, "peak_mib": 2048.0, "environment": {"device": "A100"}}
    events(folder / name, *({"event": "step", **step(i)} for i in (1, 2, 3)))
    (folder / name / "result.json").write_text(json.dumps(result))
    arm, _, seed = name.rpartition("seed")
    return Run(name, folder / name, config, Job(True, int(seed), "none", True), arm.strip("-") or "trained")


def step(iteration: int, **other: Any) -> dict[str, Any]:
    return {"iteration": iteration, "loss": 1.0, "lr": 0.1, "seconds": 0.5, "memory_mib": 1024.0, **other}


def events(folder: Path, *said: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    begun = {"event": "start", "iteration": 0, "iterations": len(said)}
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (begun, *said)))


def measured(box: float | None = 38.0, mask: float | None = 34.0) -> Measured:
    ap = {metric: dict.fromkeys(NAMES, value) for metric, value in (("box", box), ("mask", mask))}
    return Measured(ap, 8, 8, 30)


def reported(folder: Path, *names: str, found: Measured | None = None, **changed: Any) -> VerificationReport:
    made = planned(folder, *(names or ("seed0",)), **changed)
    return collect(made, PROOF, {run.name: found or measured() for run in made.runs}, PASSED)


def altered(report: VerificationReport, **changed: Any) -> VerificationReport:
    """The same report with other facts of its first run."""
    first, *others = report.runs
    return replace(report, runs=(replace(first, **changed), *others))


def rows(text: str) -> list[list[str]]:
    """The cells of each row below the head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def documented() -> dict[str, set[str] | None]:
    """What the docstring says of ``report.json``: its keys, each with the keys that are below it."""
    block = (reporting.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    found: dict[str, set[str] | None] = {}
    for entry in re.split(r"\n    (?=\S)", "\n" + block)[1:]:
        names, _, said = entry.partition("  ")
        inner = re.search(r"\{(.*)\}", said, re.DOTALL)
        plain = re.sub(r"\{[^}]*\}|\([^)]*\)|[\s:]", "", inner[1]) if inner else None
        found |= dict.fromkeys(names.split(", "), set(plain.split(",")) if plain is not None else None)
    return found


def test_the_keys_are_those_that_are_documented(tmp_path):
    detector = tmp_path / "detector.pth"
    detector.write_bytes(b"weights")
    request = Request("target.py", "eval", checkpoint=str(detector))
    found = as_json(reported(tmp_path, request=request, notes=("EMAHook is off",)))
    said = documented()
    assert found.keys() == said.keys()
    assert len(said) == 16
    for name, keys in said.items():
        below = found[name][0] if isinstance(found[name], tuple) else found[name]
        assert keys is None or below.keys() == keys, name


def test_what_there_is_not_is_null(tmp_path):
    made = planned(tmp_path, "seed0", expected=None)
    found = json.loads(json.dumps(as_json(collect(made, None, {}, PASSED))))
    assert [found[name] for name in ("expected", "proof", "detector", "runs")] == [None, None, None, []]
    assert found["data"]["images"] is None
    assert found["recipe"]["row"] is None


def test_it_is_what_was_written(tmp_path):
    found = reported(tmp_path, "seed0", "seed1")
    write(found, tmp_path, None, print)
    body = json.loads((tmp_path / "report.json").read_text())
    assert body == json.loads(json.dumps(as_json(found)))
    assert from_json(body) == found
    assert (tmp_path / "report.md").read_text() == markdown([found])


def test_the_schema_and_the_numbers_of_a_run_are_told(tmp_path):
    found = json.loads(json.dumps(as_json(reported(tmp_path))))
    (run,) = found["runs"]
    assert (found["schema"], found["command"], found["config"]) == (2, "verify-ap", "target.py")
    assert found["recipe"]["style"] == "caffe"
    assert (
        found["recipe"] | {"length": "12 epochs", "lr": 0.02, "detector": "MaskRCNN", "images_per_step": 16}
        == found["recipe"]
    )
    assert found["expected"]["band"] == "box AP 38, mask AP 34, at most 0.3 points below"
    assert run["ap"] == {"box": 38.0, "mask": 34.0}
    assert run["metrics"]["mask"].keys() == set(NAMES)
    assert run["steps"] == [[1, 1.0, 0.1], [2, 1.0, 0.1], [3, 1.0, 0.1]]
    assert (run["seed"], run["starts"], run["seconds_per_step"], run["peak_mib"]) == (0, 1, 0.5, 2048.0)


def test_files_are_named_by_their_sha256(tmp_path):
    (tmp_path / "detector.pth").write_bytes(b"abc")
    request = Request("target.py", "eval", checkpoint=str(tmp_path / "detector.pth"))
    found = reported(tmp_path, request=request, notes=("EMAHook is off",))
    assert found.detector.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert found.data.sha256 == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of {}


def test_a_run_that_did_not_end_is_left_out(tmp_path):
    made = planned(tmp_path, "seed0", "seed1")
    assert [run.name for run in collect(made, PROOF, {"seed1": measured()}, PASSED).runs] == ["seed1"]


def test_the_memory_is_the_most_of_any_process_that_the_run_had(tmp_path):
    made = planned(tmp_path, "seed0")
    events(tmp_path / "seed0", {"event": "step", **step(1, memory_mib=4096.0)}, {"event": "step", **step(2)})
    assert collect(made, PROOF, {"seed0": measured()}, PASSED).runs[0].peak_mib == 4096.0


def test_a_long_run_is_thinned(tmp_path):
    made = planned(tmp_path, "seed0")
    events(tmp_path / "seed0", *({"event": "step", **step(i)} for i in range(1, 2001)))
    steps = collect(made, PROOF, {"seed0": measured()}, PASSED).runs[0].steps
    assert [step.iteration for step in steps] == list(range(1, 2001, 5))


# json.dumps writes NaN, which no other reader of JSON takes
def test_report_json_is_json_whatever_a_run_has_not_told(tmp_path):
    made = planned(tmp_path, "seed0")
    events(tmp_path / "seed0", {"event": "step", **step(1, loss=None, seconds=None)})
    write(collect(made, PROOF, {"seed0": measured(None, None)}, PASSED), tmp_path, None, print)
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)


def test_the_table_has_the_columns_of_mmdetection(tmp_path):
    head, rule, row, *_ = markdown([reported(tmp_path)]).splitlines()
    assert head == COLUMNS
    assert rule == "| " + " | ".join(["---"] * 10) + " |"
    assert row == "| moco | ResNet-18 | caffe | smoke | 2.1 | 2.5 (A100) | 38.0 | 34.0 | target.py |  |"


def test_what_could_steer_a_terminal_is_written_as_escapes(tmp_path):
    found = replace(reported(tmp_path), config="a\x1b[2J\r\u202e.py")
    shown = markdown([found])
    assert all(c == "\n" or c.isprintable() for c in shown)
    assert "a\\x1b[2J\\r\\u202e.py" in shown


def test_a_training_on_the_users_data_has_a_schedule(tmp_path):
    assert rows(markdown([reported(tmp_path, synthetic=None)]))[0][3] == "12 epochs"


def test_memory_on_the_cpu_is_another_thing_and_says_so(tmp_path):
    found = altered(reported(tmp_path), environment={"device": "CPU"})
    assert rows(markdown([found]))[0][4:6] == ["2.1 of the process", "2.5 (CPU)"]


def test_what_was_not_measured_is_empty(tmp_path):
    found = reported(tmp_path, found=Measured({"box": dict.fromkeys(NAMES)}, 8, 8, 0))
    found = altered(found, images_per_second=None)
    assert rows(markdown([found]))[0][5:8] == ["", "", ""]


def test_seeds_are_one_row_with_their_mean(tmp_path):
    found = altered(reported(tmp_path, "seed0", "seed1"), ap={"box": 39.0, "mask": 34.0})
    ((*_, box, mask, _, _),) = rows(markdown([found]))
    assert (box, mask) == ("38.5", "34.0")


def test_the_arms_of_a_lift_are_two_rows(tmp_path):
    found = reported(tmp_path, "converted-seed0", "random-seed0", "converted-seed1", "random-seed1")
    runs = [replace(run, ap={"box": {"converted": 30.0, "random": 10.0}[run.group] + run.seed}) for run in found.runs]
    found = replace(found, runs=tuple(runs))
    assert [(row[0], row[6]) for row in rows(markdown([found]))] == [("moco", "30.5"), ("random weights", "10.5")]


def test_the_mean_is_of_what_was_measured(tmp_path):
    (run,) = reported(tmp_path).runs
    runs = [replace(run, ap=ap) for ap in ({"box": 38.04}, {"box": 38.1}, {"box": None}, {})]
    assert mean(runs, "box") == "38.1"
    assert mean(runs, "mask") == ""
    assert mean([replace(run, ap={"box": 0.0})], "box") == "0.0"
    assert mean([], "box") == ""


def test_several_reports_are_one_table_and_each_says_its_verdict(tmp_path):
    first, second = reported(tmp_path), reported(tmp_path, request=Request("other.py", "load"))
    second = replace(second, verdict=replace(second.verdict, status="fail", reasons=("it is wrong", "very")))
    text = markdown([first, second])
    assert text.count("Inf time") == text.count("\n| ---") == 1
    assert [row[8] for row in rows(text)] == ["target.py", "other.py"]
    table, _, notes = text.partition("\n\n")
    assert all(line.startswith("|") for line in table.splitlines())
    assert notes.splitlines() == [
        f"target.py, tier smoke ({first.purpose}): **pass**.",
        "  box AP 38.00, expected 38.",
        f"other.py, tier load ({second.purpose}): **fail**.",
        "  it is wrong.",
        "  very.",
    ]


def test_a_bar_in_a_cell_is_escaped(tmp_path):
    found = reported(tmp_path, request=Request("a|b||.py"))
    assert rows(markdown([found]))[0][8] == r"a\|b\|\|.py"


def test_a_report_without_runs_has_no_row_and_says_why(tmp_path):
    text = markdown([collect(planned(tmp_path), None, {}, Verdict("fail", ("nothing was loaded",), "none"))])
    assert rows(text) == []
    assert "**fail**.\n  nothing was loaded.\n" in text


def test_a_file_whose_name_is_no_utf8_can_be_reported(tmp_path):
    write(reported(tmp_path, request=Request(os.fsdecode(b"caf\xe9.py"))), tmp_path, None, print)
    assert "caf" in (tmp_path / "report.md").read_text(encoding="utf-8", errors="surrogateescape")


def test_a_run_that_recorded_nothing_is_reported_all_the_same(tmp_path):
    made = planned(tmp_path, "seed0")
    (tmp_path / "seed0" / "result.json").write_text("")
    (tmp_path / "seed0" / "events.jsonl").unlink()
    found = collect(made, PROOF, {"seed0": measured()}, PASSED)
    (run,) = found.runs
    assert (run.peak_mib, run.environment, run.iterations, run.ap["box"]) == (None, {}, None, 38.0)
    assert rows(markdown([found]))[0][4:7] == ["", "", "38.0"]


def test_raw_weights_and_notes_are_told_below_the_table(tmp_path):
    raw = {"box": dict.fromkeys(NAMES, 37.25), "mask": dict.fromkeys(NAMES, None)}
    found = reported(tmp_path, found=replace(measured(), raw=raw), notes=("compile is off",))
    assert found.runs[0].raw == raw
    assert found.runs[0].ap == {"box": 38.0, "mask": 34.0}
    assert markdown([found]).splitlines()[-2:] == ["  compile is off.", "  seed0, raw weights: box AP 37.25."]


RESULTS = sorted((Path(__file__).parents[4] / "benchmarks" / "results" / "ap").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_report_of_the_first_schema_is_read(path):
    """These were written by ckptconv 0.1, before a report had notes and the AP of raw weights."""
    body = json.loads(path.read_text())
    assert body["schema"] == 1
    found = from_json(body)
    (first, *_) = body["runs"]
    assert (found.config, found.purpose, found.verdict.status) == (
        body["target"],
        body["claim"],
        body["verdict"]["status"],
    )
    assert found.recipe.images_per_step == body["recipe"]["images"]
    assert (found.runs[0].images_per_second, found.runs[0].seconds_per_step, found.runs[0].metrics) == (
        first["images_a_second"],
        first["seconds"],
        first["metrics"],
    )
    assert [list(step) for step in found.runs[0].steps] == first["steps"]
    assert [list(point) for point in found.runs[0].evaluations] == first["vals"]
    assert from_json(json.loads(json.dumps(as_json(found)))) == found


@pytest.mark.parametrize("schema", [None, 3, "2"])
def test_a_report_of_an_unknown_schema_is_refused(tmp_path, schema):
    with pytest.raises(UnreadableError) as error:
        from_json({**as_json(reported(tmp_path)), "schema": schema})
    assert error.value.message == f"the report has schema {schema!r}, and this ckptconv reads 1 and 2"
    assert error.value.hint == "Update ckptconv."


def test_a_result_of_ckptconv_0_1_is_read(tmp_path):
    made = planned(tmp_path, "seed0")
    path = tmp_path / "seed0" / "result.json"
    path.write_text(path.read_text().replace("images_per_second", "images_a_second"))
    assert collect(made, PROOF, {"seed0": measured()}, PASSED).runs[0].images_per_second == 2.5
