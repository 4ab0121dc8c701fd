"""3DPW and AMASS: parameters of body models, read with small models of one's own."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from body_files import made_up_model, made_up_regressor, old_pickle, write_model
from fuzzing.damage import retyped
from fuzzing.formats import Format, Values, as_rewritten, of_sequences
from fuzzing.pickles import hostile_pickles, second_opinion
from scipy.spatial.transform import Rotation

from posegrid.datasets.sources import amass, threedpw

_TAKE = "CMU/CMU/01/01_01_poses.npz"


@lru_cache(maxsize=2)
def _model(joints: int, shapes: int) -> dict[str, np.ndarray]:
    return made_up_model(joints, shapes, 1)


def _beside(folder: Path, model: dict[str, np.ndarray], name: str) -> None:
    """The body model, for both genders, and its regressor."""
    for gender in ("female", "male"):
        write_model(folder / "body_models" / name.format(gender=gender), model)
    np.save(folder / "J_regressor_h36m.npy", made_up_regressor(model))


def _read(source: Any, options: dict[str, Any], folder: Path) -> Values:
    config = source.Config(**options)
    recordings = source.list_recordings(config, folder)
    return of_sequences(sequence for found in recordings for sequence in source.read_recording(config, found))


# -- 3DPW -------------------------------------------------------------------------------------------------------------


def _threedpw() -> dict[str, Any]:
    """One person four metres before an upright camera."""
    generator, frames = np.random.default_rng(5), 6
    motions = np.tile(np.eye(4), (frames, 1, 1))
    motions[:, :3, :3] = Rotation.from_rotvec(generator.normal([np.pi, 0, 0], 0.02, (frames, 3))).as_matrix()
    motions[:, :3, 3] = generator.normal([0, 0.3, 4], 0.05, (frames, 3))
    return {
        "sequence": "downtown_arguing_00",
        "poses": [generator.normal(0, 0.15, (frames, 72))],
        "trans": [generator.normal(0, 0.3, (frames, 3))],
        "betas": [generator.normal(0, 1, 10)],
        "genders": ["m"],
        "cam_poses": motions,
        "cam_intrinsics": np.array([[1961.9, 0, 540.0], [0, 1969.2, 960.0], [0, 0, 1]]),
        "campose_valid": [np.ones(frames, dtype=np.uint8)],
    }


_SEQUENCE = "sequenceFiles/train/downtown_arguing_00.pkl"


def _put_pickle(folder: Path, content: bytes) -> None:
    _beside(folder, _model(24, 10), "smpl_{gender}.npz")
    (folder / _SEQUENCE).parent.mkdir(parents=True, exist_ok=True)
    (folder / _SEQUENCE).write_bytes(content)


def _write_threedpw(folder: Path, content: dict[str, Any]) -> None:
    _put_pickle(folder, old_pickle(content))


# -- AMASS ------------------------------------------------------------------------------------------------------------


def _amass() -> dict[str, Any]:
    generator, frames = np.random.default_rng(11), 9
    poses = generator.normal(0, 0.1, (frames, 156))
    poses[:, :3] = [np.pi / 2, 0, 0]  # upright, z up
    return {
        "poses": poses,
        "trans": generator.normal([0, 0, 1.0], 0.02, (frames, 3)),
        "betas": generator.normal(0, 1, 16),
        "gender": np.array("male"),
        "mocap_framerate": np.array(120.0),
    }


def _write_amass(folder: Path, content: dict[str, Any]) -> None:
    _beside(folder, _model(52, 16), "smplh/{gender}/model.npz")
    (folder / _TAKE).parent.mkdir(parents=True, exist_ok=True)
    np.savez(folder / _TAKE, **content)


FORMATS = (
    Format(
        name="3DPW",
        content=_threedpw,
        write=_write_threedpw,
        damaged=(_SEQUENCE,),
        read=partial(_read, threedpw, {}),
        judge=as_rewritten(
            lambda folder: second_opinion(folder / _SEQUENCE), _write_threedpw, partial(_read, threedpw, {})
        ),
        mistype=retyped(_write_threedpw),
        hostile=hostile_pickles(_SEQUENCE, Path.write_bytes, "cam_poses", (2, 4)),
    ),
    Format(
        name="AMASS",
        content=_amass,
        write=_write_amass,
        damaged=(_TAKE,),
        read=partial(_read, amass, {"train": ("CMU",), "held_out": (), "dmpls": False}),
        mistype=retyped(_write_amass),
    ),
)
