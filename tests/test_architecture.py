"""The rules of the house that a machine can check: who imports whom, names, sizes, no paths of one machine."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("datasets", "models", "orchestration", "experiments")
FILES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
ALLOWED = {
    "datasets": {"datasets"},
    "models": {"models"},
    "orchestration": {"datasets", "models", "orchestration"},
    "experiments": set(ROOMS),
}


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=place)
def test_imports_point_downwards(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0]
    for name in imports(file):
        top, _, rest = name.partition(".")
        assert top not in ROOMS, f"{place(file)} imports {name}: write posegrid.{name}"
        if top == "posegrid" and rest:
            assert rest.split(".")[0] in ALLOWED[room], f"{place(file)} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=place)
def test_ray_mlflow_and_torch_stay_in_their_rooms(file: Path) -> None:
    where = place(file)
    tops = {name.split(".")[0] for name in imports(file)}
    if not where.startswith("orchestration/launch/"):
        assert "ray" not in tops, f"{where} imports ray"
    # the tracking store, and trained models as models of MLflow: two nouns, neither of which fits into the other's file
    if where not in ("orchestration/tracking.py", "orchestration/model_registry.py"):
        assert "mlflow" not in tops, f"{where} imports mlflow"
    numpy_only = ("datasets/schema.py", "datasets/skeletons.py", "datasets/occlusions/", "datasets/metrics/")
    if where.startswith(numpy_only):
        assert "torch" not in tops, f"{where} imports torch"


@pytest.mark.parametrize("file", FILES, ids=place)
def test_files_are_small_and_well_named(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= (300 if file.name == "loop.py" else 400), f"{place(file)} has {lines} lines: split it"
    assert not {"utils", "common", "helpers", "misc"} & {*file.relative_to(ROOT).parts, file.stem}


@pytest.mark.parametrize("file", FILES, ids=place)
def test_no_device_is_chosen_outside_launch(file: Path) -> None:
    text = file.read_text()
    if not place(file).startswith("orchestration/launch/"):
        assert '"cuda' not in text
        assert ".cuda()" not in text


@pytest.mark.parametrize("file", FILES, ids=place)
def test_nothing_happens_on_import(file: Path) -> None:
    """Module level holds definitions, constants and docstrings; no calls as statements, no environment."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Expr):
            call_of_app = isinstance(node.value, ast.Call) and place(file) == "experiments/cli.py"
            assert isinstance(node.value, ast.Constant) or call_of_app, f"{place(file)}:{node.lineno}"
        for inner in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign) else ():
            assert not (isinstance(inner, ast.Attribute) and inner.attr == "environ"), f"{place(file)}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=place)
def test_public_names_are_documented(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), f"{place(file)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{place(file)}: {node.name} has no docstring"


def test_package_list_equals_the_tree() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {"posegrid." + ".".join(file.relative_to(ROOT).parent.parts) for file in FILES}
    assert listed == present


def test_datasets_folder_leaves_the_name_to_others() -> None:
    assert not list((ROOT / "datasets").rglob("__init__.py"))


def test_no_path_of_one_machine_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.])/(?:work|root|farm)(?:/|\b)")
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if file.suffix in (".py", ".md", ".toml", ".yaml", ".sh", ".yml", "") and file.is_file():
            if file == Path(__file__):
                continue
            found = pattern.search(file.read_text(errors="replace"))
            assert not found, f"{name}: {found.group()}"


def test_importing_a_room_imports_neither_ray_nor_mlflow() -> None:
    code = (
        "import sys, posegrid.models.registry, posegrid.datasets.prepare, posegrid.orchestration.loop;"
        "assert not {'ray', 'mlflow'} & set(sys.modules), sys.modules.keys() & {'ray', 'mlflow'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
