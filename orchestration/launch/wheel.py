"""The wheel of the working tree, and what a submitted job carries: so what runs on the nodes is what you have."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

_ROOMS = ("datasets", "models", "orchestration", "experiments")
_FILES = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")


def working_tree() -> Path | None:
    """The folder with pyproject.toml that this posegrid is imported from; None if it is an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "datasets").is_dir() else None


def build_wheel(root: Path, out: Path) -> Path:
    """Build the wheel of a working tree, committed or not, into a folder; returns its file.

    It is built from a copy of the sources: what earlier builds left in the tree cannot get in, and several builds at a
    time do not meet. Raises ValueError if it cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="posegrid-wheel-") as scratch:
        copy = Path(scratch) / "tree"
        copy.mkdir()
        for room in _ROOMS:
            shutil.copytree(root / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _FILES:
            if (root / name).is_file():
                shutil.copy(root / name, copy / name)
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), *_isolation(), str(copy)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(out.glob("posegrid-*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise ValueError(
            f"the wheel of {root} cannot be built ({last[0]}). It needs the packages of `make setup` and a "
            "pyproject.toml that lists every folder: run `make wheel` to see more, or give a finished one with --wheel."
        )
    return wheels[-1]


def _isolation() -> list[str]:
    """Build with the setuptools that is here, if it is new enough: that needs no network and is faster."""
    found = find_spec("setuptools")
    if found is None:
        return []
    from importlib.metadata import version

    return ["--no-isolation"] if int(version("setuptools").split(".")[0]) >= 77 else []


def pack(wheel: Path, named: list[str], folder: Path) -> dict[str, str]:
    """Fill the folder that a job takes along and runs in: the unpacked wheel, and the user's own recipes and grids with
    all TOML files beside them. Returns name of such a file -> its name there.

    What lies under the current folder keeps its path, so that files which name one another need no change. The folder
    comes first in the search path of the job's processes on all nodes, before what these have installed.
    named: paths of TOML files. Raises ValueError for a file that is no wheel of posegrid.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if not any(name.startswith("posegrid/") for name in archive.namelist()):
                raise ValueError("it holds no posegrid")
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(
            f"{wheel} is no wheel of posegrid ({error}); it was set with --wheel. Allowed: a file made by `make "
            "wheel`. Give one, or leave --wheel out to build that of the working tree."
        ) from None
    here = Path.cwd()
    places: dict[Path, Path] = {}
    for file in (Path(name).resolve() for name in named):
        inside = file.is_relative_to(here)
        places.setdefault(file.parent, file.parent.relative_to(here) if inside else Path(f"recipes{len(places)}"))
    for source, place in places.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for file in sorted(source.glob("*.toml")):
            shutil.copy(file, folder / place / file.name)
    return {name: str(places[Path(name).resolve().parent] / Path(name).name) for name in named}
