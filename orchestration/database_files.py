"""SQLite files of tracking databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


@contextmanager
def opened_alone(uri: str) -> Iterator[None]:
    """For the time of a block, let no other process of this machine open a database file at that address for the first
    time: two commands that make the tables of a new file together spoil it. Makes the file's folder. Does nothing for a
    server or a file that exists."""
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///"):
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(f".{file.name}.lock")
    if file.exists() and not lock.exists():
        yield
        return
    with FileLock(lock):
        yield
    lock.unlink(missing_ok=True)
