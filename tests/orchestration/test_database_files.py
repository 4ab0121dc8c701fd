"""Two commands that start in a new folder at once."""

import threading
from pathlib import Path

from posegrid.orchestration.database_files import opened_alone
from posegrid.orchestration.tracking import sqlite_uri


def test_only_one_makes_a_new_database(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mlflow.db"
    inside, go, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with opened_alone(sqlite_uri(file)):
            file.write_bytes(b"half")
            inside.set()
            go.wait(10)
            order.append("first")

    def second() -> None:
        inside.wait(10)
        with opened_alone(sqlite_uri(file)):
            order.append("second")

    threads = [threading.Thread(target=one) for one in (first, second)]
    for one in threads:
        one.start()
    inside.wait(10)
    threads[1].join(0.3)
    assert order == []  # the second waits although the file is there
    go.set()
    for one in threads:
        one.join(10)
    assert order == ["first", "second"]
    assert [each.name for each in file.parent.iterdir()] == ["mlflow.db"]
    with opened_alone(sqlite_uri(file)), opened_alone(sqlite_uri(file)), opened_alone("http://127.0.0.1:9"):
        pass  # a database that exists is everybody's
