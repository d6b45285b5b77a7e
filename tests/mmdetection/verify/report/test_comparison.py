"""Several reports in one page: what is read from their folders, what differs, and that nothing of it is run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ckptconv.errors import UnreadableError, UsageError
from ckptconv.mmdetection.config import python_source
from ckptconv.mmdetection.verify.report import comparison
from ckptconv.mmdetection.verify.report.comparison_page import page
from tests.mmdetection.verify.report.test_html import HOSTILE, curves, drawing, made, ran, verdict
from tests.support import forked
from tests.support.html_page import Parsed, require_sound

pytestmark = pytest.mark.mmdet
CONFIG = {
    "model": {"type": "MaskRCNN", "backbone": {"depth": 50, "frozen_stages": 1}},
    "train_pipeline": [{"type": "Resize", "scale": (1333, 800)}, {"type": "RandomFlip", "prob": 0.5}],
    "lr": 0.02,
    "limits": [0.1, float("inf")],
}


def work_dir(folder: Path, report: dict[str, Any], config: dict[str, Any] | str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    if config is not None:
        text = config if isinstance(config, str) else python_source.assignments(config)
        (folder / "config.py").write_text(text)
    return folder


def three(folder: Path) -> list[Path]:
    """Two trainings with one difference in the config, and a lift."""
    other = {**CONFIG, "model": {"type": "MaskRCNN", "backbone": {"depth": 50, "frozen_stages": 2}}, "extra": 1}
    arms = [
        ran(s, name=f"{g}-seed{s}", group=g, ap={"box": b + s})
        for s in (0, 1)
        for g, b in (("converted", 30.0), ("random", 20.0))
    ]
    return [
        work_dir(folder / "one", made(ran(0)), CONFIG),
        work_dir(folder / "two", made(ran(0), ran(1), verdict=verdict("fail")), other),
        work_dir(folder / "three", made(*arms, tier="lift", verdict=verdict("inconclusive"))),
    ]


def test_what_differs_in_the_configs_is_found_by_its_path(tmp_path):
    compared = comparison.read(three(tmp_path))
    assert [(one.path, one.values) for one in comparison.config_differences(compared)] == [
        ("model.backbone.frozen_stages", ("1", "2", "")),
        ("extra", ("", "1", "")),
    ]
    assert compared[0].config["train_pipeline[0].scale"] == "(1333, 800)"
    assert compared[0].config["limits"] == "[0.1, float('inf')]"


def test_configs_that_are_equal_differ_in_nothing(tmp_path):
    folders = [work_dir(tmp_path / str(i), made(ran(0)), CONFIG) for i in range(2)]
    compared = comparison.read(folders)
    assert comparison.config_differences(compared) == []
    parsed = require_sound(page(compared))
    assert parsed.said("p").count("Nothing.") == 2


@pytest.mark.parametrize(
    "text", ["raise SystemExit(3)\n", "import os\nos.mkdir('made')\nx = os.mkdir('made')\n", "x = (\n", "\0"]
)
def test_a_config_is_read_and_never_run(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (one,) = comparison.read([work_dir(tmp_path / "w", made(ran(0)), text)])
    assert not (tmp_path / "made").exists()
    assert set(one.config) <= {"x"}


def test_the_means_are_those_of_each_group(tmp_path):
    _, two, lift = comparison.read(three(tmp_path))
    assert (two.groups, two.mean("box", "trained")) == (("trained",), 30.0)
    assert (lift.groups, lift.mean("box", "converted"), lift.mean("box", "random")) == (
        ("converted", "random"),
        30.5,
        20.5,
    )
    assert lift.mean("mask", "random") is None


def test_the_page_has_verdicts_ap_curves_and_differences(tmp_path):
    compared = comparison.read(three(tmp_path))
    text = page(compared)
    parsed = require_sound(text)
    assert parsed.said("h2") == [
        "Verdicts", "Average precision, in percent", "Curves", "What differs in the configs", "What else differs",
    ]  # fmt: skip
    marks = [
        (attrs["class"], said)
        for (tag, attrs), said in zip([e for e in parsed.elements if e[0] == "span"], parsed.said("span"), strict=True)
    ]
    assert marks == [("mark good", "pass"), ("mark bad", "fail"), ("mark warn", "inconclusive")]
    assert set(curves(text)) >= {"The loss of 5 trainings on a log axis.", "box AP of 5 trainings."}
    names = [said for said in Parsed(drawing(text, "box AP of each run")).said("text") if said[0] in "123"]
    assert {"1", "2", "3 converted", "3 random"} <= set(names)
    assert "random-seed0" not in drawing(text, "The loss")
    cells = parsed.said("td")
    assert cells[cells.index("tier") :][:4] == ["tier", "smoke", "smoke", "lift"]


def test_every_text_is_text(tmp_path):
    hostile = made(ran(0, name=HOSTILE, group=HOSTILE, environment={HOSTILE: HOSTILE}), config=HOSTILE, tier=HOSTILE)
    hostile["verdict"] = verdict(HOSTILE)
    folders = [
        work_dir(tmp_path / "<script>x", hostile, f"a = {HOSTILE!r}\n"),
        work_dir(tmp_path / "b", made(ran(0)), "a = 1\n"),
    ]
    parsed = require_sound(page(comparison.read(folders)))
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert sum(HOSTILE in said for _, said in parsed.texts) > 5


def test_reports_without_runs_have_a_page(tmp_path):
    parsed = require_sound(page(comparison.read([work_dir(tmp_path / "w", made())])))
    assert "svg" not in {tag for tag, _ in parsed.elements}


def test_many_reports_have_a_page(tmp_path):
    folders = [work_dir(tmp_path / str(i), made(ran(i)), {**CONFIG, "lr": i / 10}) for i in range(9)]
    require_sound(page(comparison.read(folders)))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, UsageError, "there is no report.json in"),
        ("{", UnreadableError, "is not a report of verify-ap: JSONDecodeError"),
        ("[]", UnreadableError, "is not a report of verify-ap: TypeError"),
        ('{"schema": 2}', UnreadableError, "is not a report of verify-ap: KeyError"),
        ('{"schema": 99}', UnreadableError, "the report has schema 99"),
    ],
)
def test_what_is_not_a_report_is_refused(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(error, match=message):
        comparison.read([tmp_path])


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    three(Path())
    words = [sys.executable, "-m", "ckptconv", "report", "one", "two", "three/report.json"]
    done = forked.run(words, env={**os.environ}, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "pass         one; trained, box AP 30.00, mask AP 20.00",
        "fail         two; trained, box AP 30.00, mask AP 20.00",
        "inconclusive three/report.json; converted, box AP 30.50; random, box AP 20.50",
        "report       comparison.html",
    ]
    require_sound((tmp_path / "comparison.html").read_text(encoding="utf-8"))
    again = forked.run(words, env={**os.environ}, timeout=60)
    assert (again.returncode, again.stderr.splitlines()[0]) == (2, "error: comparison.html exists")
    forced = forked.run([*words, "-f", "-o", "x.html", "--json"], env={**os.environ}, timeout=60)
    assert json.loads(forced.stdout)["reports"][1] == {
        "folder": "two", "verdict": "fail", "ap": {"trained": {"box": 30.0, "mask": 20.0}},
    }  # fmt: skip
