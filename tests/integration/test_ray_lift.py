"""Files lifted as Ray tasks: the poses of one process, errors returned, not raised."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from posegrid.datasets.keypoints.clips import Reading
from posegrid.datasets.skeletons import H36M_17
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.clip_sources import clip_sources
from posegrid.orchestration.launch.ray_lift import run_on_ray
from posegrid.orchestration.lifting_choices import Choices
from posegrid.orchestration.lifting_jobs import jobs_for, run_job
from posegrid.orchestration.settings import Settings

pytestmark = pytest.mark.ray

WALK = Path(__file__).parents[2] / "datasets" / "examples" / "walk.csv"


def test_tasks_lift_as_one_process_does(tmp_path: Path, lifter_settings: Settings) -> None:
    shape = shape_of(H36M_17, lifter_settings.data)
    torch.manual_seed(0)
    model = checkpoint.build(lifter_settings, shape)
    about = {"hash": "", "source": "toy", "skeleton": "h36m_17"}
    file = tmp_path / "model.pt"
    checkpoint.write(file, checkpoint.model_file(lifter_settings, shape, model.state_dict(), about))
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in ("a", "b", "c"):
        for ending in (".csv", ".toml"):
            (folder / f"{name}{ending}").write_text(WALK.with_suffix(ending).read_text())
    (folder / "b.toml").unlink()  # its skeleton is not known then
    sources = clip_sources([folder])
    here = jobs_for(str(file), "", sources, tmp_path / "here", Reading(), Choices())
    there = jobs_for(str(file), "", sources, tmp_path / "there", Reading(), Choices())
    outcomes = dict(run_on_ray(there, 2, None))
    for index, job in enumerate(here):
        alone = run_job(job)
        assert bool(alone.error) == bool(outcomes[index].error) == (index == 1)
        if index != 1:
            one, other = (pq.read_table(each.out) for each in (job, there[index]))
            assert one.equals(other)
