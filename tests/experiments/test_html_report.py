"""The HTML page: stands alone, escapes what people write, draws intervals that another bootstrap confirms."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posegrid.datasets.skeletons import H36M_17
from posegrid.experiments.reports import grid_report
from posegrid.experiments.reports.charts import Axis, Bar, Series, bars, plot
from posegrid.experiments.reports.evidence import gather, key
from posegrid.experiments.reports.html_report import _below, page, warnings
from posegrid.experiments.reports.intervals import (
    METRICS,
    action_wise,
    draws,
    interval,
    paired_difference,
    recordings_of,
)
from posegrid.experiments.reports.matrices import MODEL_METRICS, Cell, Matrix, StudyResults
from posegrid.experiments.reports.model_table import model_rows
from posegrid.experiments.reports.page_parts import shade
from posegrid.experiments.reports.published import why_unlike
from posegrid.experiments.reports.signs import PALETTE, signs_of
from posegrid.orchestration.complexity import Complexity
from posegrid.orchestration.tracking import EVALUATED, Trial

BUILT = datetime(2026, 1, 2, tzinfo=UTC)
COST = Complexity(parameters=9, flops_per_pose=12.5e6, poses_per_s=4321.0, poses=9, batch=8, device="CPU, 2 threads")


def table_of_recordings(shift: float, recordings: int = 12, seed: int = 0) -> str:
    """per_recording.csv of made-up recordings by two cameras, three actions, unlike lengths."""
    random = np.random.default_rng(seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["subject", "recording", "camera", "action", "frames", "pairs", "windows", *METRICS])
    for number in range(recordings):
        hard = random.normal(80, 15)
        for camera in ("a", "b"):
            frames = int(random.integers(20, 200))
            values = [hard + shift + random.normal(0, 2) + place for place in range(len(METRICS))]
            row = [f"S{number % 2}", f"take {number}", camera, f"action {number % 3}", frames, frames - 1, frames // 9]
            writer.writerow([*row, *(f"{value:.6f}" for value in values)])
    return text.getvalue()


def parts_of(shift: float) -> str:
    lines = ["by,of,split,entries,mpjpe_mm"]
    lines += [f"joint,{joint},{split},9,{50 + shift}" for joint in H36M_17.joints for split in ("all", "occluded")]
    lines += [f"gap,{gap},occluded,9,{60 + shift}" for gap in ("3-4", "65+", "1")]
    lines += [f"speed,{speed},all,9,{70 + shift}" for speed in ("0-0.1", "1.5+")]
    return "\n".join(lines) + "\n"


def examples_of() -> bytes:
    random = np.random.default_rng(0)
    file = io.BytesIO()
    pose = random.normal(0, 0.3, (3, 4, 17, 3)).astype(np.float32)
    visible = np.ones((3, 4, 17), dtype=bool)
    visible[:, 2, 5] = False
    arrays = {"keypoints": pose[..., :2], "visible": visible, "predicted": pose, "target": pose + np.float32(0.02)}
    about = {"recording": np.array(["S9/walk <1>/a"] * 3), "start": np.arange(3) * 9, "stride": np.ones(3, int)}
    np.savez(file, **arrays, **about, frame_rate=np.full(3, 25.0), size=np.full((3, 2), 1000))
    return file.getvalue()


class Store:
    """A tracking store of made-up runs."""

    def __init__(self, folder: Path, files: dict[tuple[str, str], bytes]) -> None:
        self._folder = folder
        self._files = files

    def artifacts(self, run_id: str, folder: str = "") -> list[str]:
        return [name for run, name in self._files if run == run_id and name.startswith(f"{folder}/")]

    @contextmanager
    def fetched(self, run_id: str, name: str) -> Iterator[Path]:
        file = self._folder / f"{run_id} {name.replace('/', ' ')}"
        file.write_bytes(self._files[run_id, name])
        yield file

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        return [(step, 1.0 / (step + 1)) for step in range(5)]


def study(protocols: dict[str, str], seeds: int = 2, **changes: Any) -> StudyResults:
    """Members that are trained and tested on one pattern."""
    column = "leg_run"
    cells, matrices = {}, {}
    for place, label in enumerate(protocols):
        cells[label] = tuple(
            Cell(
                trained_on=column,
                seed=seed,
                trial=Trial(
                    run_id=f"run{place}{seed}",
                    key=f"k{place}{seed}",
                    status="FINISHED",
                    tags={EVALUATED + column: "f", "model": "mixste"},
                    metrics={
                        "train/loss": 1.0,
                        f"test {column}/mpjpe_mm occluded": 150.0 + place,
                        f"test {column}/mpjpe_mm visible": 70.0 + place,
                    },
                    params={"parameters": "1234"},
                    started_ms=1_760_000_000_000,
                    ended_ms=1_760_000_600_000,
                ),
                scores={column: "f"},
            )
            for seed in range(seeds)
        )
        one = np.array([[80.0 + place]])
        matrices[label] = {
            metric: Matrix(rows=(column,), columns=(column,), mean=one, std=one * 0 + 0.5, seeds=(seeds,))
            for metric in MODEL_METRICS
        }
    values: dict[str, Any] = {
        "name": "s",
        "parent": "p",
        "title": "What is asked",
        "source": "toy",
        "control_mm": 200.0,
        "skeleton": H36M_17,
        "matrices": matrices,
        "trials": {label: {column: own[0].trial} for label, own in cells.items()},
        "scoring": {label: {"protocol": text, "window": "9"} for label, text in protocols.items()},
        "tests": {column: {"pattern": column}},
        "cells": cells,
    }
    return StudyResults(**values | changes)


def files_of(results: StudyResults, *, tables: bool = True) -> dict[tuple[str, str], bytes]:
    files = {}
    for place, cells in enumerate(results.cells.values()):
        for cell in cells:
            run = cell.trial.run_id  # type: ignore[union-attr]
            files[run, "test/leg_run/per_action.csv"] = b"action,mpjpe_mm\nwalk,80\n<b>sit,90\naction-wise,85\n"
            files[run, "test/leg_run/examples.npz"] = examples_of()
            if tables:
                files[run, "test/leg_run/per_recording.csv"] = table_of_recordings(5.0 * place).encode()
                files[run, "test/leg_run/breakdown.csv"] = parts_of(place).encode()
    return files


def built(results: StudyResults, folder: Path, *, tables: bool = True) -> str:
    rows = model_rows(results, {(label, "leg_run"): COST for label in results.matrices})
    store = Store(folder, files_of(results, tables=tables))
    return page(gather(store, results, rows), built=BUILT)  # type: ignore[arg-type]


class Outline(HTMLParser):
    """Addresses, scripts, headings and the balance of a page's tags."""

    alone = ("meta", "img", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.pages: list[str] = []
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "data", "xlink:href")]
        self.pages += [value or "" for name, value in attributes if name == "srcdoc"]
        if tag not in self.alone:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes something else at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_shows_every_section(tmp_path: Path) -> None:
    text = built(study({"a": "whole windows", "b": "whole windows"}), tmp_path)
    outline = Outline(text)
    assert not outline.open
    assert all(address.startswith("#") for address in outline.addresses)
    assert not re.search(r"https?:|@import|url\(|<link", text)
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Models",
        "Differences",
        "Hidden joints",
        "Actions",
        "Where the error lies",
        "Accuracy and time",
        "Learning curves",
        "Examples",
        "Runs and settings",
    ]
    assert "predicting the mean training pose: 200.0 mm" in outline.text
    assert "09 October 2025, 4 runs" in outline.text
    assert f"hidden: {H36M_17.joints[5]}" in outline.text
    assert outline.pages
    assert all("walk &lt;1&gt;/a, person S9" in inner for inner in outline.pages)
    assert not any(Outline(inner).addresses for inner in outline.pages)


def test_what_people_write_is_escaped(tmp_path: Path) -> None:
    bad = '<script>alert("x")</script>{0}{{ 7 * 7 }}'
    results = study({bad: "whole windows", "b & c": "whole windows"}, title=bad, source='"><img src=x>')
    text = built(results, tmp_path)
    outline = Outline(text)
    assert "img" not in outline.seen
    assert text.count("<script>") == 1  # the page's own, which opens folds for the printer
    assert "{{ 7 * 7 }}" in outline.text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;{0}" in text
    assert "<b>sit" not in text


def test_unlike_protocols_stay_apart(tmp_path: Path) -> None:
    protocols = {"a": "whole windows, tails dropped", "b": "centre frame", "c": "whole windows, tails dropped"}
    results = study(protocols)
    text = built(results, tmp_path)
    tables = re.findall(r"<summary>(Tested on[^<]*)</summary>.*?<tbody>(.*?)</tbody>", text, re.S)
    models = {title: re.findall(r'<th scope="row">.*?<span>(\w)</span>', body, re.S) for title, body in tables[:2]}
    assert models == {
        "Tested on leg_run; whole windows, tails dropped": ["a", "c"],
        "Tested on leg_run; centre frame": ["b"],
    }
    assert "Rows of different tables cannot be compared" in text
    assert "a, c (whole windows, tails dropped) and b (centre frame)." in text
    assert "No difference for b: scored otherwise than a." in text


def test_runs_without_tables_show_no_interval_and_say_so(tmp_path: Path) -> None:
    results = study({"a": "whole windows", "b": "whole windows"})
    text = built(results, tmp_path, tables=False)
    assert "no model here has one: the runs hold no table of recordings" in text
    assert "Without intervals" in text
    assert "Where the error lies" in text
    assert not re.search(r"<small>[^<]*\[", text)


def one_by_one(text: str, times: dict[str, int]) -> float:
    """Action-wise MPJPE of a draw: `times` each recording, row by row."""
    total: dict[str, list[float]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        sums = total.setdefault(row["action"], [0.0, 0.0])
        often = times[row["recording"]]
        sums[0] += often * int(row["frames"]) * float(row["mpjpe_mm"])
        sums[1] += often * int(row["frames"])
    return float(np.mean([value / count for value, count in total.values() if count]))


def test_intervals_equal_a_bootstrap_row_by_row() -> None:
    texts = [table_of_recordings(0.0), table_of_recordings(1.0, seed=5)]
    names = [f"take {number}" for number in range(12)]
    random = np.random.default_rng(11)
    drawn = []
    for _ in range(1500):
        chosen = random.choice(names, len(names))
        times = {name: int((chosen == name).sum()) for name in names}
        drawn.append(np.mean([one_by_one(text, times) for text in texts]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    found = interval([recordings_of(text) for text in texts])["mpjpe_mm"]
    # ends of 1500 and 2000 draws each scatter by about 0.05 of the width
    assert found == pytest.approx((low, high), abs=0.2 * (high - low))
    assert interval([recordings_of(table_of_recordings(0.0, recordings=4))]) == {}


def test_a_shift_of_all_recordings_is_a_certain_difference() -> None:
    """What makes recordings hard is common to both and cancels: the interval shrinks to the noise."""
    first, second = (recordings_of(table_of_recordings(shift)) for shift in (0.0, 5.0))
    found = paired_difference([first], [second])["mpjpe_mm"]
    assert found == pytest.approx((5.0, 5.0, 5.0), abs=1e-4)
    alone = interval([first])["mpjpe_mm"]
    assert alone[1] - alone[0] > 3
    other = recordings_of(table_of_recordings(0.0, recordings=11))
    assert paired_difference([first], [other]) == {}
    windows = replace(second, counts=second.counts + np.array([0, 0, 0, 1, 0, 1]))
    assert set(paired_difference([first], [windows])) == set(METRICS) - {"mpjve_mm", "segment_std_mm"}


def test_cameras_of_a_recording_are_drawn_together() -> None:
    found = recordings_of(table_of_recordings(0.0))
    assert len(found.names) == 12
    assert np.array_equal(draws(12), draws(12))
    assert (draws(12).sum(axis=1) == 12).all()
    everything = np.ones((1, 12), dtype=int)
    text = table_of_recordings(0.0)
    expected = one_by_one(text, {f"take {number}": 1 for number in range(12)})
    assert action_wise(found, everything)[0, 0] == pytest.approx(expected)


def test_every_seed_must_have_its_table(tmp_path: Path) -> None:
    results = study({"a": "x"})
    rows = model_rows(results, {})
    files = files_of(results)
    whole = gather(Store(tmp_path, files), results, rows)  # type: ignore[arg-type]
    assert set(whole.intervals(rows[0])) == set(METRICS)
    assert whole.parts[key(rows[0])]["joint", "Head", "all"] == 50
    del files["run01", "test/leg_run/per_recording.csv"]
    assert gather(Store(tmp_path, files), results, rows).intervals(rows[0]) == {}  # type: ignore[arg-type]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    results = study({"a": "x", "b": "x, 1 window of 4 scored"}, seeds=1)
    cell = results.cells["b"][0]
    results = replace(results, cells={**results.cells, "b": (replace(cell, trial=None),)})
    rows = model_rows(results, {})
    said = " ".join(warnings(gather(Store(tmp_path, {}), results, rows)))  # type: ignore[arg-type]
    assert "1 of 2 trainings are not scored yet" in said
    assert "One seed" in said
    assert "A part of the test split is scored: 1 window of 4 scored" in said


def test_published_numbers_are_apart_and_say_why(tmp_path: Path) -> None:
    text = built(study({"a": "x"}, published="diffhpe_table4"), tmp_path)
    assert "Published, not ours: DiffHPE" in text
    assert "Not to be compared number by number: other data: ours are toy, the published Human3.6M" in text
    assert "wrapper" in text
    table = {"protocol": "Human3.6M, CPN 2D, 27 frames, S9 and S11"}
    alike = why_unlike(table, "h36m", ["whole windows"], ["27"])
    assert alike == ["2D detections, selection of the epoch and length of training may differ too"]
    unlike = " ".join(why_unlike(table, "h36m", ["centre frame, 1 window of 5 scored"], ["81"]))
    assert "ours of 81 frames, the published of 27" in unlike
    assert "1 window of 5" in unlike


def test_a_network_has_one_colour_in_every_study() -> None:
    first = signs_of(["lifter", "other"], {"lifter": "mixste", "other": "stcformer"})
    second = signs_of(["x", "y", "z"], {"x": "stcformer", "y": "mixste", "z": "mixste"})
    assert first["lifter"] == second["y"]
    assert first["other"] == second["x"]
    many = signs_of([str(number) for number in range(40)], {})
    assert len(set(many.values())) == 40
    assert {sign.colour for sign in many.values()} == set(PALETTE)


def test_charts_hold_their_values_and_no_nan() -> None:
    sign = signs_of(["a"], {})["a"]
    curve = Series(label="a{}", sign=sign, x=[0, 1, 2], y=[1.0, float("nan"), 100.0])
    text = plot([curve], Axis(title="x"), Axis(title="y", log=True), "t{}")
    assert "nan" not in text
    ups = [float(y) for y in re.findall(r'cy="([\d.]+)"', text)]
    assert len(ups) == 2
    assert ups[0] > ups[1]
    row = Bar(label="long " * 30, sign=sign, value=1.0)
    assert "nan" not in bars([row], Axis(title="x"), "t", zero=True)
    assert "nan" not in plot([], Axis(title="x"), Axis(title="y"), "nothing")


def test_shades_keep_text_readable() -> None:
    """Contrast of ink and shade as WCAG 2.1 measures it: at least 4.5."""

    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colours in ("viridis_r", "PuOr_r"):
        for place in np.linspace(0, 1, 41):
            css = shade(float(place), 0.0, 1.0, colours)
            paper, ink = (light(colour) for colour in re.findall(r"#[0-9a-fA-F]{6}", css))
            assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 4.5, (colours, place)


def test_a_study_of_many_members_stays_small(tmp_path: Path) -> None:
    results = study({f"lr {number}": "x" for number in range(40)}, seeds=1)
    said: list[str] = []
    texts, figures = grid_report._matrices(results, said.append)
    assert not figures
    assert len([name for name in texts if "minus" not in name]) == 3 * grid_report.MOST_MEMBERS + 1
    rows = list(csv.DictReader(io.StringIO(texts["report/matrices.csv"])))
    assert [row["mpjpe_mm"] for row in rows] == [f"{80 + place:.4f}" for place in range(40)]
    text = built(results, tmp_path)
    assert len(text) < 1_000_000


@pytest.mark.parametrize(
    ("value", "control", "said"),
    [
        (50.0, 200.0, ", 75 % below the mean pose"),
        (300.0, 200.0, ", 50 % above the mean pose: it predicts nothing yet"),
        (300.0, float("nan"), ""),
    ],
)
def test_a_model_that_is_no_better_than_the_mean_pose_is_called_so(value: float, control: float, said: str) -> None:
    assert _below(value, control) == said
