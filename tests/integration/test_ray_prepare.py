"""Recordings read as Ray tasks: the store of one process, and errors that say what a cluster needs."""

from pathlib import Path

import h36m_files
import pytest

from posegrid.datasets.prepare import Progress, prepare
from posegrid.datasets.store import open_store
from posegrid.orchestration.launch.ray_prepare import on_cluster

pytestmark = pytest.mark.ray

OPTIONS = {"seconds": 1.0, "actions": ["walk", "wave"], "train_subjects": 3, "test_subjects": 2}


def test_tasks_give_the_store_of_one_process(tmp_path: Path) -> None:
    here = prepare("synthetic", None, tmp_path / "here", options=OPTIONS)
    (tmp_path / "raw").mkdir()
    raw = h36m_files.write(tmp_path / "raw")
    with on_cluster(None, cpus=2) as elsewhere:
        states: list[Progress] = []
        there = prepare(
            "synthetic", None, tmp_path / "there", options=OPTIONS, elsewhere=elsewhere, progress=states.append
        )
        assert there.content_hash == here.content_hash
        assert open_store(tmp_path / "there").content_hash == here.content_hash
        assert states[-1].done == 10
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
        # nodes that do not see the files say which node and what to do
        with pytest.raises(ValueError, match=r"the node \S+ of the cluster does not find .*absent.*shared file system"):
            prepare("h36m", tmp_path / "absent", tmp_path / "nothing", elsewhere=elsewhere)
        # errors of a reader arrive as they are, with the node
        (raw / h36m_files.POSES).write_bytes(b"PK broken")
        with pytest.raises(ValueError, match=r"data_3d_h36m\.npz is damaged or cut.*read by node"):
            prepare("h36m", raw, tmp_path / "nothing", elsewhere=elsewhere)
    assert not (tmp_path / "nothing").exists()
