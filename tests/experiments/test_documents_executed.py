"""Every command and every piece of Python that the documents show is executed, here or in a test that is named here.

A command is executed with the document's own words in a folder where the files, stores and runs of its words exist,
and must end with status 0. Words in capitals are replaced, and options are added that make it small: fewer seconds of
motion, networks 16 wide, two steps of training, `--launch local` in place of Ray (`ON_RAY` names tests that start it).
Grids keep two of their patterns.

Of commands that are one case (`document_commands.py` says what that is) the first is executed: with the name of another
recipe or grid they do the same, and `test_shipped_files.py` and `test_reproduce.py` check all names. `ELSEWHERE` lists
cases that need a cluster, a server or files of an author, with the tests that execute them. Nothing is neither: a
command that is not whole, that is written where it is not found, or that is of a new kind and fails, fails this test;
so does an entry of `ELSEWHERE` that no document needs or that names no test.
"""

import ast
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import document_files
import mlflow
import numpy as np
import pytest
from document_commands import (
    DOCUMENTS,
    ROOT,
    RUN,
    Case,
    Shown,
    case_of,
    mentions,
    python_blocks,
    refused,
    shown,
    verb_of,
)

from posegrid.datasets.store import open_store
from posegrid.experiments import catalogue, reproduce_commands, search_files
from posegrid.experiments.catalogue import Grid
from posegrid.experiments.cli import main
from posegrid.orchestration import tracking_pages
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking, sqlite_uri

ON_PREMISES = "tests/cluster/test_on_premises.py"
RELEASED = "tests/experiments/test_import.py::test_the_logged_model_returns_the_released_outputs"
IMPORTED = ("d3dp", "diffhpe", "poseformer", "stcformer", "strided_transformer", "uplift_upsample", "videopose3d")
ELSEWHERE = (
    ("submit", "-- ...", f"{ON_PREMISES}::test_a_submitted_grid_survives_a_power_cut"),
    ("submit", "--attach", f"{ON_PREMISES}::test_a_job_goes_on_without_the_laptop"),
    ("ui", "--cluster .yaml", f"{ON_PREMISES}::test_ui_through_the_tunnel_and_only_with_the_secrets"),
    ("publish", "s3://", "tests/datasets/test_store_cache.py::test_two_nodes_fill_their_caches_at_once"),
    ("fetch", "cmu", "tests/experiments/test_data_commands.py::test_fetch"),
    *(("import-checkpoint", model, RELEASED) for model in IMPORTED),
)
"""(verb, one of the parts of its case, the test that executes such commands)."""

ON_RAY = {
    "train": "tests/integration/test_ray.py::test_two_workers_give_the_curve_and_metrics_of_one",
    "grid": "tests/integration/test_ray.py::test_chain_on_ray",
    "search": "tests/integration/test_ray_search.py::test_two_trials_of_which_one_diverges",
    "lift --workers": "tests/integration/test_ray_lift.py::test_tasks_lift_as_one_process_does",
}
"""What is executed here in one process, on Ray: the tests that do."""

PICTURED = {"orchestration/README.md": 1}
"""Commands within pictures made of characters."""

READS = ("report", "lift", "animate", "package", "register", "evaluate", "analyse", "study-samplers", "export-model")
"""Verbs whose commands come first: later ones add runs, and a name of a run must be that of one."""


def is_a_name(one: Shown) -> bool:
    """Whether only a verb is named, without the words that it needs; or an option that all command lines have."""
    alone = not verb_of(one.words)[2]
    return one.words[0].startswith("--") or (alone and (one.words == ("submit",) or bool(refused(one.words))))


def executed_by(case: Case) -> str:
    """The test that executes a case elsewhere, empty if it is executed here."""
    return next((test for verb, part, test in ELSEWHERE if verb == case.verb and part in case.parts), "")


def cases() -> dict[Case, Shown]:
    """What is to be executed: the first command of each case."""
    found: dict[Case, Shown] = {}
    for one in (one for document in DOCUMENTS for one in shown(document)):
        if not is_a_name(one) and not refused(one.words):
            found.setdefault(case_of(one.words), one)
    return found


def executed_here() -> list[Any]:
    left = [(case, one) for case, one in cases().items() if not executed_by(case)]
    left.sort(key=lambda each: each[0].verb.split()[0] not in READS)
    return [pytest.param(case, one, id=str(one)) for case, one in left]


# ---- nothing is left out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_found_and_whole(document: str) -> None:
    commands = shown(document)
    assert commands
    assert mentions(document) == len(commands) + PICTURED.get(document, 0)
    for one in commands:
        assert is_a_name(one) or not refused(one.words), f"{document}: {one}: {refused(one.words)}"


def test_what_is_executed_elsewhere_is_a_test() -> None:
    found = cases()
    for verb, part, _ in ELSEWHERE:
        assert any(case.verb == verb and part in case.parts for case in found), f"no document has {verb} {part}"
    for place in {test for *_, test in ELSEWHERE} | set(ON_RAY.values()):
        file, _, name = place.partition("::")
        body = ast.parse((ROOT / file).read_text()).body
        assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}, place


# ---- the commands -------------------------------------------------------------------------------------------------

SYNTHETIC = ("seconds=5.0", 'actions=["walk", "reach"]', "train_subjects=2", "test_subjects=1")
OWN_GRID = {"train": '["random_joints"]', "test": '["random_joints", "none"]'}
TRAINED = {
    "lifters_videopose3d": "none",
    "small_uplift_pretrain": "sparse_frames",
    "uplift_upsample_351_pretrain": "none",
    "small_image_regressor": "none",
}
"""Recipes of runs that commands name or start from, and their patterns."""
FILES = {"prepare": "walk.csv", "check": "walk.csv", "import-checkpoint": "best_epoch.bin", "train": "vitpose.pth"}
NO_REPORT = ("posegrid.experiments.reports.grid_report.build_report", lambda *_: None)


@dataclass(frozen=True)
class World:
    """The folder where the commands run, and the runs that are there."""

    folder: Path
    runs: dict[str, str]
    """Run name -> run id."""

    def run(self, start: str) -> str:
        """Id of the run whose name starts so."""
        return next(run for name, run in self.runs.items() if name.startswith(start))


def options(name: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (name, value)]


def posegrid(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert not ended.value.code, f"posegrid {' '.join(words)}"


def small_grid(name: str, taken: frozenset[str] = frozenset()) -> list[str]:
    """Options that make all recipes of a grid small."""
    recipes = dict.fromkeys(member.recipe for member in catalogue.load_grid(name).members)
    return options("--set", [text for recipe in recipes for text in document_files.sizes_of(recipe, taken)])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A folder as the documents assume it. Its runs have batches of 4: what the commands train is not there yet."""

    def of_4(words: list[str]) -> list[str]:
        return [word.replace("training.batch=8", "training.batch=4") for word in words]

    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(*NO_REPORT)
        (folder / "datasets").symlink_to(ROOT / "datasets")
        document_files.write_keypoints(folder)
        document_files.write_released(folder)
        shutil.copyfile(catalogue.RECIPES / "demo_lifter.toml", folder / "best.toml")
        posegrid("prepare", "synthetic", "--out", "data/synthetic", "--processes", "1", *options("--option", SYNTHETIC))
        with_patterns(catalogue.GRIDS / "demo.toml", folder / "own.toml", OWN_GRID)
        here = ("--data", "data/synthetic", "--launch", "local")
        posegrid("grid", "own.toml", *here, "--study", "demo-synthetic", *of_4(small_grid("own.toml")))
        for recipe, pattern in TRAINED.items():
            small = options("--set", document_files.sizes_of(recipe))
            posegrid("train", recipe, *here, "--occlusion", pattern, *of_4(small))
        tracking = Tracking.existing(sqlite_uri(folder / "runs" / "mlflow.db"))
        there = World(folder, {trial.tags["mlflow.runName"]: trial.run_id for trial in tracking.trials().values()})
        with tracking.fetched(there.run("lifter on"), MODEL_ARTIFACT) as file:
            shutil.copyfile(file, folder / "model.pt")
        posegrid("register", there.run("lifter on"), "--name", "lifter", "--alias", "champion")
        posegrid("lift", "walk.csv", "--model", "model.pt", "-o", "poses.parquet")
    return there


def with_patterns(grid: Path, target: Path, values: dict[str, str]) -> None:
    """A copy of a grid's file with other values of some keys, those of its members included."""
    text = grid.read_text()
    for key, value in values.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.M)
    target.write_text(text)


def filled(case: Case, words: tuple[str, ...], world: World) -> list[str]:
    """The words with names that exist for those in capitals."""
    start = "lifter on"
    if case.verb == "study-samplers":
        start = "wrapper on"
    elif case.verb.startswith("analyse"):
        start = "small_uplift_pretrain on"
    elif "--patch again" in case.parts:
        start = "small_image_regressor on"
    elif case.verb in ("train", "grid"):
        start = words[1].replace("RECIPE", "small_uplift_finetune").replace("finetune", "pretrain")
    stand = {
        "RECIPE": "mixste_27" if case.verb == "import-checkpoint" else "small_uplift_finetune",
        **{"VERB": "train", "GRID": "demo", "NAME": "mlp", "PATTERN": "leg_run"},
        **{"STUDY": "demo-synthetic", "demo-cmu": "demo-synthetic"},
        "FILE": FILES.get(case.verb, ""),
        "FILE_OR_FOLDER": "walk.json" if case.verb == "prepare" else "detections",
        "ADDRESS": (world.folder / "published").as_uri(),
    }
    if "--dry_run" in case.parts:
        stand["diffhpe-table4"] = (
            "simple-baseline"  # whose plan takes a second, not nine: test_reproduce.py has the other
        )
    if case.verb == "prepare":
        stand["FOLDER"] = f"raw/{words[1]}"
    else:
        stand["STORE"] = "data/synthetic"
    given = [RUN.sub(lambda _: world.run(start), stand.get(word, word)) for word in words]
    return [word.replace("=FILE", f"={FILES.get(case.verb)}") for word in given]


def shorter(case: Case, words: list[str]) -> list[str]:
    """Options that make a command small, to be added."""
    given = [words[at + 1].partition("=")[0].rpartition(":")[2] for at, word in enumerate(words) if word == "--set"]
    sizes = partial(document_files.sizes_of, taken=frozenset(given))
    match case.verb:
        case "prepare":
            return ["--processes", "1", *(options("--option", SYNTHETIC) if words[1] == "synthetic" else [])]
        case "train":
            return ["--launch", "local", *options("--set", sizes(words[1]))] if len(words) > 2 else []
        case "grid":
            return ["--launch", "local", *small_grid(words[1], frozenset(given))]
        case "import-checkpoint":
            return options("--set", sizes(words[1]))
        case "plan":
            return small_grid(words[1])
        case "search":
            recipe = search_files.load_search(words[1]).recipe
            return ["--launch", "local", "--trials", "2", *options("--set", sizes(recipe))]
        case "reproduce":
            return ["--launch", "local"]
        case "complexity":
            own = [text.partition(":")[2] for text in sizes(words[1])]
            return ["--repetitions", "1", "--batch", "1", *options("--set", own)]
        case "study-samplers":
            return ["--every", "20", "--hypotheses", "2"]
        case "lift" | "animate":
            draws = case.verb == "animate" or "--animate" in words
            return [*(["--seconds", "0.2"] if draws else []), *(["--workers", "0"] if "--workers" in words else [])]
        case "ui":
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                return ["--port", str(probe.getsockname()[1])]
        case _:
            return []


def made_by(case: Case, words: list[str]) -> list[str]:
    """Files and folders that a command writes by its words; a table has its description beside it."""
    named = [words[at + 1] for at, word in enumerate(words) if word in ("-o", "--out", "--animate")]
    if case.verb in ("export", "export-keypoints"):
        named.append(words[2])
    return [*named, *(str(Path(name).with_suffix(".toml")) for name in named if name.endswith(".csv"))]


def prepare_inputs(case: Case, words: list[str], made: list[str]) -> None:
    """Raw files where a command looks for them; every store is the synthetic one, by the document's name for it."""
    if case.verb == "prepare" and "--raw" in words:
        raw = Path(words[words.index("--raw") + 1])
        if words[1] in document_files.RAW and not raw.exists():
            raw.mkdir(parents=True)
            document_files.RAW[words[1]](raw)
        elif words[1] == "parquet":
            posegrid("export", "data/synthetic", str(raw))
    for word in words:
        if re.fullmatch(r"data/\w+", word) and word not in made and not Path(word).exists():
            Path(word).symlink_to("synthetic")


@contextmanager
def aside(names: list[str]) -> Iterator[None]:
    """What has these names is put away meanwhile, and what was made under them is removed at the end."""
    away = Path("aside")
    away.mkdir()
    there = {name: away / str(number) for number, name in enumerate(names) if Path(name).exists()}
    for name, place in there.items():
        Path(name).rename(place)
    try:
        yield
    finally:
        for name in names:
            if Path(name).is_dir() and not Path(name).is_symlink():
                shutil.rmtree(name)
            else:
                Path(name).unlink(missing_ok=True)
        for name, place in there.items():
            place.rename(name)
        away.rmdir()


def of_two_patterns(load: Callable[..., Grid], *words: Any) -> Grid:
    """A grid with the first two of its patterns: no option of the command line leaves patterns out."""
    whole = load(*words)
    members = tuple(replace(member, train=member.train[:1]) for member in whole.members)
    return replace(whole, train=whole.train[:2], test=whole.test[:2], members=members)


def smaller(run: Callable[[list[str]], None], words: list[str]) -> None:
    """A command that `posegrid reproduce` runs, its recipes small."""
    run([*words, *(small_grid(words[1]) if words[0] == "grid" else [])])


def until_it_answers(command: list[str], env: dict[str, str], check: bool) -> None:
    """In place of waiting for Ctrl-C: start the server, look at its page, end it."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(address, timeout=1) as page:
                    assert b"MLflow" in page.read()
                return
            except OSError:
                assert process.poll() is None
                time.sleep(0.25)
        raise AssertionError(f"nothing answers at {address}")
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("case", "one"), executed_here())
def test_the_command_works(case: Case, one: Shown, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    words = filled(case, one.words, world)
    made = made_by(case, words)
    if case.verb in ("train", "grid", "reproduce"):
        # `posegrid report` builds it, and the grid of test_cli.py
        monkeypatch.setattr(*NO_REPORT)
    if case.verb == "reproduce":
        monkeypatch.setattr(reproduce_commands, "_run", partial(smaller, reproduce_commands._run))
    monkeypatch.setattr(catalogue, "load_grid", partial(of_two_patterns, catalogue.load_grid))
    with aside(made):
        prepare_inputs(case, words, made)
        more = shorter(case, words)
        if case.verb == "ui":
            monkeypatch.setattr(tracking_pages.subprocess, "run", until_it_answers)
        posegrid(*words, *more)
        for name in made:
            assert Path(name).exists(), f"{one} wrote no {name}"


# ---- Python -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "number"), [(document, at) for document in DOCUMENTS for at, _ in enumerate(python_blocks(document))]
)
def test_the_python_works(document: str, number: int, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remark such as "# (100, 17, 3)" says the shape of what its line makes; letters stand for any number."""
    monkeypatch.chdir(world.folder)
    text = python_blocks(document)[number]
    names: dict[str, Any] = {"keypoints": document_files.request_keypoints()}
    names |= {"store": open_store("data/synthetic"), "sequence": np.array([0, 1]), "frame": np.array([5, 7])}
    with aside([name for name in re.findall(r'"([\w.]+)"', text) if name == "poses.parquet" and "lift(" in text]):
        try:
            exec(compile(text, f"{document}, piece {number + 1} of Python", "exec"), names)
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        for line, shape in re.findall(r"^(\S.*?)  +# \(([\w, ]+)\)", text, re.M):
            found = eval(line.partition(" = ")[0], names).shape
            expected = [int(one) if one.isdigit() else found[at] for at, one in enumerate(shape.split(", "))]
            assert list(found) == expected, line
