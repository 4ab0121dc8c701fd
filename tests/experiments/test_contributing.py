"""The worked examples of CONTRIBUTING.md, run as they are printed: what it takes to add something, and nothing else."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets import prepare as preparing
from posegrid.datasets.metrics import summary
from posegrid.datasets.metrics.coherence import CoherenceConfig
from posegrid.datasets.occlusions import registry as occlusions
from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.store import Store, open_store
from posegrid.experiments import catalogue, search_files
from posegrid.experiments.cli import main
from posegrid.models import registry as models
from posegrid.orchestration.tracking import Tracking, sqlite_uri

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
ROOMS = {
    "models": "posegrid.models",
    "datasets/sources": "posegrid.datasets.sources",
    "datasets/occlusions": "posegrid.datasets.occlusions",
    "datasets/metrics": "posegrid.datasets.metrics",
}


def section(heading: str) -> list[str]:
    """Lines below a heading of the third level."""
    lines = TEXT.splitlines()
    first = lines.index(f"### {heading}") + 1
    last = next((at for at in range(first, len(lines)) if lines[at].startswith("### ")), len(lines))
    return lines[first:last]


def printed(heading: str) -> dict[str, str]:
    """Code blocks below a heading by the file that is named last before each; a diff as "diff"."""
    found: dict[str, str] = {}
    block: list[str] | None = None
    file = ""
    for line in section(heading):
        if block is None and line.startswith("```"):
            block, name = [], "diff" if line == "```diff" else file
        elif line == "```":
            assert block is not None
            found[name], block = "\n".join(block) + "\n", None
        elif block is not None:
            block.append(line)
        else:
            file = (re.findall(r"`([\w/.]+\.(?:py|toml))`", line) or [file])[-1]
    return found


def commands(heading: str) -> list[list[str]]:
    """The `posegrid` commands below a heading, words after the first."""
    return [line.split()[1:] for line in section(heading) if line.startswith("    posegrid ")]


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which new files count as lying in the folders of posegrid; the tree itself stays as it is."""
    before = set(sys.modules)
    for folder, package in ROOMS.items():
        (tmp_path / folder).mkdir(parents=True)
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path / folder)])
    names, sources, patterns = models._names(), preparing.source_names(), occlusions.occlusion_names()

    def also(folder: str) -> list[str]:
        return [file.stem for file in (tmp_path / folder).glob("*.py")]

    monkeypatch.setattr(models, "_names", lambda: tuple(sorted([*names, *also("models")])))
    monkeypatch.setattr(preparing, "source_names", lambda: sorted([*sources, *also("datasets/sources")]))
    monkeypatch.setattr(occlusions, "occlusion_names", lambda: tuple(sorted([*patterns, *also("datasets/occlusions")])))
    for kind, room in (("recipes", catalogue), ("searches", search_files)):
        folder = tmp_path / "experiments" / kind
        folder.mkdir(parents=True)
        shipped = getattr(room, kind.upper())
        for file in shipped.glob("*.toml"):
            (folder / file.name).symlink_to(file)
        monkeypatch.setattr(room, kind.upper(), folder)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[-1] in ("linear", "studio", "hat", "extent"):
            del sys.modules[name]


def write(root: Path, files: dict[str, str]) -> None:
    """Write the blocks that name a file where they say."""
    for name, content in files.items():
        if "." in name:
            (root / name).write_text(content)


def run(words: list[str], store: Store | None = None, *more: str) -> None:
    """Run a command of the document, on another store if one is given."""
    given = [str(store.path) if store and word.startswith("data/") else word for word in words]
    with pytest.raises(SystemExit) as ended:
        main([*given, *more])
    assert not ended.value.code, words


def test_a_model_is_one_file_and_one_recipe_and_takes_part_in_a_grid(
    added: Path, toy_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = printed("A model")
    assert list(files) == ["models/linear.py", "experiments/recipes/linear.toml", "beside.toml"]
    write(added, files)
    monkeypatch.setattr("posegrid.experiments.reports.grid_report.build_report", lambda *_: None)
    (grid,) = commands("A model")
    run(grid, toy_store)
    trials = Tracking.existing(sqlite_uri(added / "runs" / "mlflow.db")).trials().values()
    scored = {trial.tags["mlflow.runName"]: sorted(trial.evaluated) for trial in trials}
    assert scored == {
        f"{member} on {pattern}": ["leg_run", "none"] for member in ("linear", "MLP") for pattern in ("none", "leg_run")
    }
    linear = next(trial for trial in trials if trial.tags["mlflow.runName"] == "linear on none")
    assert int(linear.params["parameters"]) == 34 * 51 + 51
    assert linear.metrics["test none/mpjpe_mm"] < 500  # poses of this store lie within a metre of the root


def test_a_data_set_is_one_file(added: Path) -> None:
    write(added, printed("A data set"))
    generator = np.random.default_rng(0)
    truth = {}
    for subject in ("ann", "ben"):
        for action in ("walk", "run"):
            folder = added / "raw" / "studio" / subject
            folder.mkdir(parents=True, exist_ok=True)
            poses = generator.normal(0, 0.3, (1, 17, 3)) + generator.normal(0, 0.01, (30, 17, 3)).cumsum(0) * 0.1
            poses[..., 2] += 4
            pixels = 500 + 800 * poses[..., :2] / poses[..., 2:]
            np.savez(folder / f"{action}.npz", poses=poses, keypoints=pixels)
            truth[f"{subject}/{action}/front"] = poses
    run(commands("A data set")[0], None, "--processes", "1")
    store = open_store(added / "data" / "studio")
    assert {sequence.name: sequence.split for sequence in store.sequences} == {
        "ann/run/front": "train",
        "ann/walk/front": "held_out",
        "ben/run/front": "test",
        "ben/walk/front": "test",
    }
    for sequence in store.sequences:
        rows = slice(sequence.offset, sequence.offset + sequence.frames)
        np.testing.assert_allclose(store.poses[rows], truth[sequence.name], atol=1e-6)


def test_an_occlusion_is_one_file(added: Path, toy_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(added, printed("An occlusion"))
    draws = WindowDraws(3, np.arange(400, dtype=np.uint64), np.zeros(400, np.int64))
    visible = occlusions.masks("hat", occlusions.occlusion_config("hat", {}), draws, 9, toy_store.skeleton)
    head = toy_store.skeleton.joints.index("Head")
    assert visible.shape == (400, 9, 17)
    worn = ~visible[:, 0, head]
    assert abs(worn.mean() - 0.5) < 4 * 0.5 / 20  # four standard deviations
    assert (visible[:, :, head] == ~worn[:, None]).all()
    assert np.delete(visible, head, axis=2).all()
    monkeypatch.setattr("posegrid.experiments.reports.grid_report.build_report", lambda *_: None)
    (train,) = commands("An occlusion")
    run(train, toy_store, "--launch", "local", "--set", "training.epochs=1")
    (trial,) = Tracking.existing(sqlite_uri(added / "runs" / "mlflow.db")).trials().values()
    assert (list(trial.evaluated), trial.params["occlusion.rate"]) == (["hat"], "0.5")


def test_a_metric_is_a_function_and_three_lines(added: Path) -> None:
    files = printed("A metric")
    write(added, files)
    text = Path(str(summary.__file__)).read_text()
    for hunk in files["diff"].split("\n\n"):
        old = "\n".join(line[1:] for line in hunk.splitlines() if not line.startswith("+"))
        new = "\n".join(line[1:] for line in hunk.splitlines() if not line.startswith("-"))
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    changed: dict = {"__name__": "posegrid.datasets.metrics.summary"}
    exec(compile(text, "summary.py", "exec"), changed)
    generator = np.random.default_rng(1)
    predicted, target = generator.normal(size=(2, 3, 4, 17, 3))
    weight = np.ones((3, 4), np.int64)
    weight[2, 3] = 0
    sums = changed["MetricSums"](("walk",), CoherenceConfig())
    sums.add(np.zeros(3, np.int64), predicted, target, np.ones((3, 4, 17), bool), weight)
    by_hand = [
        abs(
            sum((max(p[c] for p in a) - min(p[c] for p in a)) ** 2 for c in range(3)) ** 0.5
            - sum((max(p[c] for p in b) - min(p[c] for p in b)) ** 2 for c in range(3)) ** 0.5
        )
        for window in range(3)
        for frame in range(4)
        if weight[window, frame]
        for a, b in [(predicted[window, frame].tolist(), target[window, frame].tolist())]
    ]
    found = sums.action_wise()
    assert found["extent_mm"] == pytest.approx(1000 * sum(by_hand) / len(by_hand))
    plain = summary.MetricSums(("walk",), CoherenceConfig())
    plain.add(np.zeros(3, np.int64), predicted, target, np.ones((3, 4, 17), bool), weight)
    assert {name: found[name] for name in plain.action_wise()} == plain.action_wise()


def test_a_search_is_one_file(added: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(added, printed("A model") | printed("A search"))
    check, search = commands("A search")
    run(check)
    assert "4 trials" in capsys.readouterr().out
    assert search == ["search", "linear", "--data", "data/synthetic", "--launch", "local"]
    loaded = search_files.load_search("linear")
    assert loaded.space["training.lr"]
