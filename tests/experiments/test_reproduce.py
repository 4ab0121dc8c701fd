"""`posegrid reproduce`: published tables have commands that work, small versions with the same question, index rows."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.store import Store
from posegrid.experiments import catalogue, plan_commands, reproduce_commands
from posegrid.experiments.cli import main
from posegrid.experiments.planning import plan
from posegrid.experiments.reproductions import grid_text, paper_commands, small_grids, table_named, tables

INDEX = Path(__file__).parents[2] / "experiments" / "README.md"
TABLES = [name for name, table in tables().items() if table.commands]


def index_rows() -> list[dict[str, str]]:
    """The index of experiments/README.md."""
    lines = INDEX.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| table or figure |"))
    names = [cell.strip(" `") for cell in lines[first].strip("|").split("|")]
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return rows


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, output and errors of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_rows_of_published_tables_have_a_number_for_each_column() -> None:
    for name, table in tables().items():
        assert table.rows, name
        for row, numbers in table.rows.items():
            assert len(numbers) == len(table.columns), f"{name}, row {row}"
            assert np.isfinite(numbers).any(), f"{name}, row {row}"
        assert table.commands or table.note, f"{name} has neither commands nor a word about why"


def test_index_and_published_tables_are_in_step() -> None:
    """Every table and each of its commands is in the index, with published numbers, and the index names no other."""
    rows = index_rows()
    assert {row["reproduce"].strip("`") for row in rows} - {"-"} == set(tables())
    for name, table in tables().items():
        mine = [row for row in rows if row["reproduce"] == f"`{name}`"]
        printed = {f"{number:g}" for numbers in table.rows.values() for number in numbers if np.isfinite(number)}
        for row in mine:
            if "published.toml" not in row["published"]:
                numbers = re.findall(r"\d+\.\d+", row["published"])
                assert numbers, row
                assert {f"{float(number):g}" for number in numbers} <= printed, row
        if not table.commands:
            assert all(row["ours"] == "not yet possible" for row in mine)
            continue
        if name == "uplift-upsample-complexity":  # the section on analyses has its commands
            continue
        wanted = {f"`posegrid {' '.join(words)}`" for words in paper_commands(table, f"data/{table.data}", 1)}
        assert {row["command"] for row in mine} == wanted, name


def test_every_row_of_the_index_says_what_came_out_and_names_what_exists() -> None:
    known = {*catalogue.names(catalogue.RECIPES), *catalogue.names(catalogue.GRIDS)}
    text = INDEX.read_text()
    for row in index_rows():
        assert row["ours"].startswith(("not yet", "below", "[below]", "grid `")), row
        assert set(re.findall(r"`(\w+)`", row["recipe or grid"])) <= known, row
        if "below" in row["ours"]:
            (shown,) = re.findall(r"`(\w+)`", row["ours"]) or re.findall(r"`(\w+)`", row["recipe or grid"])
            assert re.search(rf"^## `{shown}` on CMU", text, re.M), row
    words = " ".join(row["command"] + " " + row["recipe or grid"] for row in index_rows())
    in_index = set(re.findall(r"\b(\w+)\b", words))
    grids = set(catalogue.names(catalogue.GRIDS)) - {"diffhpe_study", "small_di2pose"}  # in sections of their own
    assert grids <= in_index, grids - in_index


@pytest.mark.parametrize("name", TABLES)
def test_small_versions_resolve_and_keep_what_the_table_varies(name: str, toy_store: Store, tmp_path: Path) -> None:
    for small in small_grids(table_named(name)):
        file = tmp_path / f"{small.name}.toml"
        file.write_text(grid_text(small.grid, ["a comment"]))
        read = catalogue.load_grid(str(file))
        assert (read.members, read.train, read.test, read.set) == (
            small.grid.members,
            small.grid.train,
            small.grid.test,
            small.grid.set,
        )
        planned = plan(small.name, read, toy_store)
        # no two members are the same network trained in the same way
        trained = [tuple(cells.values()) for cells in planned.members.values()]
        assert len(set(trained)) == len(trained)
        for recipe, changed in small.changed.items():
            assert changed["training.epochs"][1] <= 2 < changed["training.epochs"][0], recipe
        for stage in planned.stages.values():
            published = catalogue.recipe(stage.settings.name)
            assert stage.settings.training.epochs < published.training.epochs


def test_paper_commands_name_what_exists() -> None:
    """Recipes, grids and values of every training command; `test_shipped_files` plans recipes and grids themselves."""
    changed = []
    for table in tables().values():
        for words in paper_commands(table, "data/x", 1) if table.commands else []:
            assert words[0] in ("grid", "train", "complexity")
            changes = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
            if words[0] == "grid":
                assert catalogue.load_grid(words[1]).members
                continue
            name = words[1]
            own = catalogue.recipe(name, catalogue.overrides_for(name, changes, member=True))
            if changes:
                assert own.conditioner is not None
                lifter = own.conditioner.recipe
                theirs = catalogue.recipe(lifter, catalogue.overrides_for(lifter, changes, member=False))
                changed.append((own.data.frames, theirs.data.frames))
    assert changed == [(243, 243), (243, 243)]


def test_the_list_and_dry_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_store: Store
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys, "reproduce", "--json")
    assert status == 0
    listed = json.loads(out)
    assert [one["name"] for one in listed] == list(tables())
    assert listed[0]["commands"] == ["posegrid grid diffhpe_cross_domain"]
    status, out, _ = run(capsys, "reproduce", "diffhpe_table4", "--dry-run")
    assert status == 0
    assert "SCALED DOWN" in out.splitlines()[2]
    assert "mixste_27: model.width 64 -> 32" in out
    assert "first: posegrid prepare synthetic --out data/synthetic" in out
    assert "posegrid grid runs/reproduce/diffhpe_cross_domain-small.toml --data data/synthetic" in out
    assert "not comparable" in out.splitlines()[-1]
    # with data, the small grid is planned as `posegrid plan` does it
    planned = []
    monkeypatch.setattr(
        plan_commands, "plan_command", lambda name, **options: planned.append((Path(name).name, options))
    )
    assert run(capsys, "reproduce", "d3dp", "--dry-run", "--data", toy_store.path)[0] == 0
    assert run(capsys, "reproduce", "d3dp", "--dry-run", "--scale", "paper")[0] == 0
    (small, options), (paper, at_size) = planned
    assert (small, options["data"], options["as_"]) == ("d3dp-small.toml", str(toy_store.path), None)
    assert (paper, at_size["data"], at_size["as_"], at_size["gpus_each"]) == ("d3dp_243", None, "h36m", 1)
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (
            ["diffhpe-table5"],
            'published table "diffhpe-table5" (command line) is unknown; did you mean "diffhpe-table4"?',
        ),
        (["d3dp", "--scale", "tiny"], '--scale tiny is unknown. Allowed are "small" and "paper"'),
        (["di2pose-occluded"], "cannot be made by commands yet: needs a Di2Pose trained on pictures of 3DPW"),
    ):
        status, _, err = run(capsys, "reproduce", *arguments)
        assert (status, message in err) == (2, True), err


def test_a_small_version_writes_its_grid_and_runs_it(
    capsys: pytest.CaptureFixture[str], toy_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(reproduce_commands, "_run", ran.append)
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "reproduce", "simple-baseline", "--home", tmp_path, "--launch", "local")
    assert status == 0, err
    file = tmp_path / "reproduce" / "simple-baseline-small.toml"
    assert ran[0][:2] == ["prepare", "synthetic"]
    assert ran[1] == ["grid", str(file), "--data", "data/synthetic", "--home", str(tmp_path), "--launch", "local"]
    assert catalogue.load_grid(str(file)).members[0].recipe == "simple_baseline"
    assert "not comparable" in out.splitlines()[-1]
    ran.clear()
    status, out, err = run(capsys, "reproduce", "mixste", "--scale", "paper", "--home", tmp_path)
    assert status == 0, err
    where = ["--data", "data/h36m", "--gpus-per-worker", "1", "--home", str(tmp_path), "--launch", "ray"]
    assert ran == [["train", "mixste_81", *where], ["train", "mixste_243", *where]]
    assert "SCALED" not in out
