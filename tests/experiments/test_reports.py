"""What a report says of a study: protocols apart, published numbers where they belong, no diagonal where none is."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.experiments import catalogue
from posegrid.experiments.reports import costs, grid_report
from posegrid.experiments.reports.costs import costs_of_members, rough_flops
from posegrid.experiments.reports.matrices import MODEL_METRICS, NOT_RECORDED, Matrix, StudyResults, read_study
from posegrid.experiments.reports.model_table import model_csv, model_rows, model_table
from posegrid.experiments.reports.published import published_table
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.complexity import Complexity
from posegrid.orchestration.grid import open_study
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.tracking import EVALUATED, Tracking, Trial

COST = Complexity(
    parameters=1234567, flops_per_pose=12.5e6, poses_per_s=4321.0, poses=9, batch=8, device="CPU, 2 threads"
)


def matrix(rows: tuple[str, ...], columns: tuple[str, ...], first: float, std: float = float("nan")) -> Matrix:
    mean = first + np.arange(len(rows) * len(columns), dtype=float).reshape(len(rows), -1)
    seeds = (3 if std == std else 1,) * len(rows)
    return Matrix(rows=rows, columns=columns, mean=mean, std=np.full_like(mean, std), seeds=seeds)


def results(
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    protocols: dict[str, str],
    std: float = float("nan"),
    **changes: Any,
) -> StudyResults:
    """A study whose numbers tell where they come from: 100 for each member, 10 for each metric, then row and column."""
    trial = Trial(
        run_id="r", key="k", status="FINISHED", tags={}, metrics={}, params={"parameters": f"{COST.parameters}"}
    )
    values: dict[str, Any] = {
        "name": "s",
        "parent": "p",
        "title": "t",
        "source": "toy",
        "control_mm": 200.0,
        "skeleton": H36M_17,
        "matrices": {
            label: {
                metric: matrix(rows, columns, 100.0 * (member + 1) + 10 * place, std)
                for place, metric in enumerate(MODEL_METRICS)
            }
            for member, label in enumerate(protocols)
        },
        "trials": {label: dict.fromkeys(rows, trial) for label in protocols},
        "scoring": {label: {"protocol": text, "window": "9"} for label, text in protocols.items()},
        "tests": {},
    }
    return StudyResults(**values | changes)


def tables(text: str) -> list[list[list[str]]]:
    """The markdown tables of a text: rows of cells, titles first."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_unlike_protocols_never_share_a_table() -> None:
    study = results(("none",), ("none",), {"a": "whole windows", "b": "centre frame", "c": "whole windows"})
    measured = {(label, "none"): COST for label in "abc"}
    text = model_table(study, model_rows(study, measured))
    found = tables(text)
    assert [[row[0] for row in table[2:]] for table in found] == [["a", "c"], ["b"]]
    assert "Tested on none; whole windows; one seed:" in text
    assert "Tested on none; centre frame; one seed:" in text
    assert found[1][2] == ["b", "9", "200.0", "210.0", "220.0", "230.0", "240.0", "1,234,567", "12.5", "4,321"]
    assert "CPU, 2 threads" in text


def test_a_test_pattern_that_trains_too_shows_the_diagonal() -> None:
    patterns = ("none", "leg_run")
    study = results(patterns, patterns, {"a": "whole windows", "b": "whole windows"}, std=0.25)
    found = tables(model_table(study, model_rows(study, {})))
    assert [[row[:3] for row in table[2:]] for table in found] == [
        [["a", "9", "100.0 +- 0.2"], ["b", "9", "200.0 +- 0.2"]],
        [["a", "9", "103.0 +- 0.2"], ["b", "9", "203.0 +- 0.2"]],
    ]
    assert "trained on" not in found[0][0]
    assert "3 seeds" in model_table(study, model_rows(study, {}))
    assert found[0][2][-2:] == ["-", "-"]


def test_without_a_diagonal_every_model_is_shown_with_its_training() -> None:
    study = results(("s 4", "s 10"), ("video 4",), {"a": "centre frame"})
    (table,) = tables(model_table(study, model_rows(study, {})))
    assert [row[:4] for row in table[2:]] == [["a", "s 4", "9", "100.0"], ["a", "s 10", "9", "101.0"]]


def test_csv_holds_what_the_table_shows_and_the_device() -> None:
    study = results(("none",), ("none",), {"a": "whole windows, tails dropped"}, std=0.5)
    (row,) = csv.DictReader(io.StringIO(model_csv(model_rows(study, {("a", "none"): COST}))))
    assert row["protocol"] == "whole windows, tails dropped"
    assert (row["mpjpe_mm"], row["mpjpe_mm std over seeds"], row["mpjve_mm"]) == ("100.0000", "0.5000", "120.0000")
    assert (row["FLOPs per pose"], row["poses per s"], row["device"]) == ("12500000", "4321.0", "CPU, 2 threads")


def test_differences_only_between_members_that_are_scored_alike() -> None:
    said: list[str] = []
    patterns = ("none", "leg_run")
    study = results(patterns, patterns, {"a": "whole windows", "b": "centre frame", "c": "whole windows"})
    texts, figures = grid_report._matrices(study, said.append)
    assert [name for name in texts if "minus" in name] == [
        f"report/c_minus_a_{metric}.csv" for metric in ("mpjpe_mm", "symmetry_gap_mm", "segment_std_mm")
    ]
    assert {name for name in figures if "mpjpe" in name} == {"report/c_minus_a_mpjpe_mm.png", "report/b_mpjpe_mm.png"}
    assert any(
        "b has no difference from a: it is scored otherwise (centre frame; whole windows)" in line for line in said
    )


class Recorder:
    """Keeps what would be logged."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def log_metrics(self, run_id: str, values: dict[str, float]) -> None:
        self.metrics |= values


@pytest.mark.filterwarnings("error")
def test_no_diagonal_is_mentioned_where_there_is_none() -> None:
    study = results(("s 4", "s 10"), ("video 4",), {"a": "centre frame"}, published="diffhpe_table4")
    recorder = Recorder()
    grid_report._log_diagonals(recorder, study)  # type: ignore[arg-type]
    assert recorder.metrics["a/mean of all cells mpjpe_mm"] == 100.5
    assert not [name for name in recorder.metrics if "diagonal" in name]
    assert study.diagonal("a") == []


def test_published_numbers_only_where_the_grid_names_them() -> None:
    patterns = ("none", "leg_run")
    assert grid_report._published(results(patterns, patterns, {"a": "x"})) == {}
    beside = grid_report._published(results(patterns, patterns, {"a": "x"}, published="diffhpe_table4"))
    ((name, text),) = beside.items()
    assert name == "report/occlusion_table.md"
    (table,) = tables(text)
    assert table[0] == [
        "pattern",
        "a (ours)",
        "lifter (published)",
        "wrapper, vanilla conditioner (published)",
        "wrapper (published)",
    ]
    assert table[2:] == [["none", "100.0", "54.8", "51.2", "51.2"], ["leg_run", "103.0", "55.1", "54.1", "52.6"]]
    itself = grid_report._published(results(("s 4",), ("v",), {"a": "x"}, published="uplift_upsample"))
    ((name, text),) = itself.items()
    assert name == "report/published.md"
    assert text.startswith("Published, not ours: Uplift and Upsample")
    assert ["frames_351", "-", "45.7", "46.1", "47.8"] in tables(text)[0]


def test_an_unknown_published_table_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match='did you mean "diffhpe_table4"'):
        published_table("diffhpe_table5", "here")
    file = tmp_path / "grid.toml"
    file.write_text(
        'title = "t"\ntrain = ["none"]\ntest = ["none"]\npublished = "nowhere"\n'
        '[[members]]\nrecipe = "demo_lifter"\nlabel = "a"\n'
    )
    with pytest.raises(ValueError, match=r'"nowhere" \(grids/grid\.toml, key published\) is unknown'):
        catalogue.load_grid(str(file))


def test_a_study_of_an_older_version_says_so() -> None:
    study = results(("none",), ("none",), {"a": "x", "b": "y"}, scoring={})
    assert f"Tested on none; {NOT_RECORDED}; one seed:" in model_table(study, model_rows(study, {}))


class OneRun:
    """A tracking store of one run, which holds one model and keeps what is logged."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        pose = shape_of(H36M_17, settings.data)
        model = checkpoint.build(settings, pose)
        content = checkpoint.model_file(settings, pose, model.state_dict(), {"skeleton": "h36m_17"})
        checkpoint.write(folder / "model.pt", content)
        self.file = folder / "model.pt"
        self.tags: dict[str, str] = {"posegrid.trained": "true"}
        self.metrics: dict[str, float] = {}

    @contextmanager
    def fetched(self, run_id: str, name: str) -> Iterator[Path]:
        yield self.file

    def log_metrics(self, run_id: str, values: dict[str, float]) -> None:
        self.metrics |= values

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self.tags |= tags

    def study(self, settings: Settings, **changes: Any) -> StudyResults:
        trial = Trial(run_id="r", key="k", status="FINISHED", tags=dict(self.tags), metrics={}, params={})
        plain = settings.plain()
        tests = {name: occlusion_values(name, "test") for name in ("none", "leg_run")}
        values: dict[str, Any] = {
            "scoring": {"a": {"protocol": "x", "window": "9", **{key: plain[key] for key in ("evaluation", "data")}}},
            "trials": {"a": {"none": trial}},
            "tests": tests,
        }
        return results(("none",), ("none", "leg_run"), {"a": "x"}, **values | changes)


def test_costs_are_measured_once_and_again_when_scoring_changes(lifter_settings: Settings, tmp_path: Path) -> None:
    tracking, said = OneRun(lifter_settings, tmp_path), []
    first = costs_of_members(tracking, tracking.study(lifter_settings), said.append)  # type: ignore[arg-type]
    assert set(first) == {("a", "none"), ("a", "leg_run")}
    assert first["a", "none"] == first["a", "leg_run"]  # the mask does not change what it costs
    assert tracking.metrics["complexity leg_run/flops per pose"] == first["a", "none"].flops_per_pose
    assert len(said) == 1
    again = costs_of_members(tracking, tracking.study(lifter_settings), said.append)  # type: ignore[arg-type]
    assert again == first
    assert len(said) == 1
    centre = replace(lifter_settings, evaluation=replace(lifter_settings.evaluation, score="centre"))
    other = costs_of_members(tracking, tracking.study(centre), said.append)  # type: ignore[arg-type]
    assert other["a", "none"].flops_per_pose == pytest.approx(9 * first["a", "none"].flops_per_pose)
    assert len(said) == 2


def test_costs_that_would_take_long_are_left_to_the_command(
    lifter_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking, said = OneRun(lifter_settings, tmp_path), []
    monkeypatch.setattr(costs, "MOST_FLOPS", 1e3)
    assert costs_of_members(tracking, tracking.study(lifter_settings), said.append) == {}  # type: ignore[arg-type]
    assert said == ["a: costs are not measured here, it would take long: posegrid complexity r"]


def test_a_pattern_that_does_not_fit_leaves_a_gap(lifter_settings: Settings, tmp_path: Path) -> None:
    tracking, said = OneRun(lifter_settings, tmp_path), []
    sparse = occlusion_values({"pattern": "sparse_frames", "strides": [40]}, "test")
    study = tracking.study(lifter_settings, tests={"none": sparse})
    assert costs_of_members(tracking, study, said.append) == {}  # type: ignore[arg-type]
    assert said[0].startswith('a: costs are not measured: occlusion "sparse_frames": strides has 40')


def test_long_chains_are_recognised() -> None:
    def rough(recipe: str) -> float:
        settings = catalogue.recipe(recipe)
        model = checkpoint.build(settings, shape_of(H36M_17, settings.data))
        return rough_flops(model, settings, 17)

    assert rough("mixste_27") < rough("diffhpe_2d") < costs.MOST_FLOPS < rough("d3dp_27")


def test_a_row_is_the_mean_of_its_own_seeds(tracking: Tracking, toy_store: Store) -> None:
    """One pattern with two seeds, another with one; a seed that is not scored leaves its row empty."""
    study = open_study("uneven", toy_store, tracking, {}, "t")
    tracking.log_metrics(study.parent, {"control mean pose/mpjpe_mm": 200.0})
    cells = []
    for pattern, seed, value in (("none", 0, 10.0), ("none", 1, 14.0), ("leg_run", 0, 30.0), ("arm_leg", 0, 1.0)):
        run = tracking.open_trial(f"{pattern} {seed}", "a", study.parent, {}, {})
        tracking.log_metrics(run, {"test none/mpjpe_mm": value})
        tracking.set_tags(run, {f"{EVALUATED}none": "f"})
        cells.append({"trained_on": pattern, "seed": seed, "key": f"{pattern} {seed}", "scores": {"none": "f"}})
    cells.append({"trained_on": "arm_leg", "seed": 1, "key": "never run", "scores": {"none": "f"}})
    described = {"title": "t", "source": "toy", "skeleton": "h36m_17", "members": {"a": cells}}
    tracking.log_plain(study.parent, described, "study.json")
    found = read_study(tracking, "uneven").matrices["a"]["mpjpe_mm"]
    assert found.seeds == (2, 1, 2)
    np.testing.assert_allclose(found.mean[:, 0], [12.0, 30.0, np.nan])
    np.testing.assert_allclose(found.std[:, 0], [np.sqrt(8), np.nan, np.nan])
