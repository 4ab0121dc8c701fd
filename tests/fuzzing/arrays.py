"""Sources that come as containers of arrays: npz, HDF5, zip, MATLAB, CDF. Files of the published layouts, made up."""

import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import mpi_inf_3dhp_files as mpi
import numpy as np
from fuzzing.damage import retyped
from fuzzing.formats import Format, Values, as_rewritten, of_sequences, unchanged_part
from fuzzing.pickles import hostile_pickles, in_npz, npz_bombs
from h36m_files import CPN, CPN_DATA, GT_DATA, POSE_DATA, POSES, SYMMETRY
from scipy.io import loadmat, savemat

from posegrid.datasets.cameras import H36M_CAMERA_IDS
from posegrid.datasets.schema import Recording
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.sources import h36m, h36m_archive, h36m_official, mpi_inf_3dhp

_NAME = "Walking"


# -- Human3.6M as npz -------------------------------------------------------------------------------------------------


def _h36m_npz() -> dict[str, Any]:
    metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": SYMMETRY}
    poses = {subject: {_NAME: takes[_NAME]} for subject, takes in POSE_DATA.items()}
    keypoints = {subject: {_NAME: CPN_DATA[subject][_NAME]} for subject in POSE_DATA}
    return {"poses": {"positions_3d": poses}, "keypoints": {"positions_2d": keypoints, "metadata": metadata}}


def _write_h36m_npz(folder: Path, content: dict[str, Any]) -> None:
    for file, part in ((POSES, "poses"), (CPN, "keypoints")):
        np.savez_compressed(
            folder / file, **{name: np.array(value, dtype=object) for name, value in content[part].items()}
        )


def _read_h36m_npz(folder: Path) -> Values:
    recordings = h36m.list_recordings(h36m.Config(), folder)
    return of_sequences(sequence for found in recordings for sequence in h36m.read_recording(h36m.Config(), found))


# -- Human3.6M's h5 archive -------------------------------------------------------------------------------------------

_RECORDING = Recording(subject="S1", action="Walking", name=_NAME)
_PLACES = ["S1/MyPoses/3D_positions/Walking.h5"]
_PLACES += [f"S1/StackedHourglass/Walking.{camera}.h5" for camera in H36M_CAMERA_IDS]


def _h36m_archive() -> dict[str, Any]:
    noise = np.random.default_rng(3)
    world = POSE_DATA["S1"][_NAME].astype(np.float64)
    content: dict[str, Any] = {_PLACES[0]: {"3D_positions": world.reshape(len(world), 96).T * 1000}}
    for place, view in zip(_PLACES[1:], GT_DATA["S1"][_NAME], strict=True):
        order = [0 if name == "Face" else H36M_17.index(name) for name in h36m_archive.MPII_16]
        content[place] = {"poses": (view + noise.normal(0, 5, view.shape))[:, order]}
    return content


def _write_h5(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as stream:
        for name, value in content.items():
            stream[name] = value


def _write_archive(folder: Path, content: dict[str, Any]) -> None:
    for place, arrays in content.items():
        _write_h5(folder / "h36m" / place, arrays)


def _write_zip(folder: Path, content: dict[str, Any]) -> None:
    _write_archive(folder / "unpacked", content)
    with zipfile.ZipFile(folder / "h36m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for place in content:
            archive.write(folder / "unpacked" / "h36m" / place, f"h36m/{place}")
    shutil.rmtree(folder / "unpacked")


def _parse_archive(folder: Path) -> dict[str, Any]:
    whole = _h36m_archive()
    return {
        place: {name: _raw_h5(folder / "h36m" / place, name, array) for name, array in arrays.items()}
        for place, arrays in whole.items()
    }


def _raw_h5(file: Path, name: str, whole: np.ndarray) -> np.ndarray:
    """The bytes at which the numbers of `whole` lie in a sound file, as numbers of the same type and shape.

    These files are written alike every time: a sound one beside the damaged one tells where.
    """
    sound = file.with_suffix(".sound")
    _write_h5(sound, {name: whole})
    at = sound.read_bytes().find(np.ascontiguousarray(whole).tobytes())
    sound.unlink()
    content = file.read_bytes()[at : at + whole.nbytes]
    return np.frombuffer(content, dtype=whole.dtype).reshape(whole.shape)


def _read_archive(zipped: bool, folder: Path) -> Values:
    config = h36m_archive.Config()
    files = [str(folder / "h36m.zip")] if zipped else [str(folder / "h36m" / place) for place in _PLACES]
    found = Recording(**{**vars(_RECORDING), "files": tuple(files)})
    return of_sequences(h36m_archive.read_recording(config, found))


# -- Human3.6M's own files --------------------------------------------------------------------------------------------


def _official() -> dict[str, Any]:
    world = POSE_DATA["S1"][_NAME]
    return {"data": world.reshape(len(world), 96).astype(np.float64) * 1000}


def _in_cell(value: Any) -> np.ndarray:
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = value
    return cell


def _write_mat5(compress: bool, folder: Path, content: dict[str, Any]) -> None:
    cells = {name: _in_cell(value) for name, value in content.items()}
    savemat(folder / "Walking.cdf.mat", cells, do_compression=compress)


def _write_mat73(folder: Path, content: dict[str, Any]) -> None:
    """Compressed in chunks, as MATLAB does."""
    file = folder / "Walking.cdf.mat"
    with h5py.File(file, "w", userblock_size=512) as stream:
        for name, value in content.items():
            packed = {"chunks": True, "compression": "gzip"} if isinstance(value, np.ndarray) and value.size else {}
            data = value.T if isinstance(value, np.ndarray) else value
            target = stream.create_group(f"#refs#{name}").create_dataset("b", data=data, **packed)
            stream.create_dataset(name, data=np.array([[target.ref]], dtype=h5py.ref_dtype))
    _sign(file)


def _sign(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def _parse_mat5(folder: Path) -> dict[str, Any]:
    """The numbers at their place in a sound file; if that is not what was read, what SciPy finds."""
    return {"data": loadmat(folder / "Walking.cdf.mat", variable_names=["data"])["data"][0, 0]}


def _write_cdf(folder: Path, content: dict[str, Any]) -> None:
    from cdflib.cdfwrite import CDF

    value = content["data"]
    with CDF(str(folder / "Walking"), delete=True) as stream:
        spec = {
            "Variable": "Pose",
            "Data_Type": 44,
            "Num_Elements": 1,
            "Rec_Vary": True,
            "Dim_Sizes": value.shape,
            "Compress": 0,
        }
        stream.write_var(spec, var_data=value[None].astype(np.float32))


def _parse_cdf(folder: Path) -> dict[str, Any]:
    """The numbers at their place in a sound file."""
    sound = folder / "sound"
    sound.mkdir()
    _write_cdf(sound, _official())
    whole = _official()["data"].astype(np.float32)
    wholes = [whole.astype(order) for order in ("<f4", ">f4")]
    content = (sound / "Walking.cdf").read_bytes()
    at, order = next((content.find(one.tobytes()), one.dtype) for one in wholes if one.tobytes() in content)
    raw = (folder / "Walking.cdf").read_bytes()[at : at + whole.nbytes]
    return {"data": np.frombuffer(raw, dtype=order).reshape(whole.shape)}


def _read_official(name: str, folder: Path) -> Values:
    found = Recording(**{**vars(_RECORDING), "files": (str(folder / name),)})
    return of_sequences(h36m_official.read_recording(h36m_official.Config(), found))


# -- MPI-INF-3DHP -----------------------------------------------------------------------------------------------------


def _mpi_npz() -> dict[str, Any]:
    train, test = mpi.npz_content(mpi.UNIVERSAL)
    kept = {name: [{"0": views["0"]}, rate] for name, (views, rate) in train.items()}
    return {"train": kept, "test": test}


def _write_mpi_npz(folder: Path, content: dict[str, Any]) -> None:
    for part in ("train", "test"):
        np.savez_compressed(folder / f"data_{part}_3dhp.npz", data=np.array(content[part], dtype=object))


def _read_mpi_npz(folder: Path) -> Values:
    config = mpi_inf_3dhp.Config(cameras=("0",))
    recordings = mpi_inf_3dhp.list_recordings(config, folder)
    return of_sequences(sequence for found in recordings for sequence in mpi_inf_3dhp.read_recording(config, found))


_RAW = mpi_inf_3dhp.Config(files="raw", annotation="metric", cameras=("0", "8"))


def _annot() -> dict[str, Any]:
    content: dict[str, Any] = {name: [np.zeros((4, 28 * size)) for _ in range(14)] for name, size in _CELLS}
    for camera in range(14):
        pixels, body = mpi.made_up_training("S1 Seq1", str(camera))
        for name, values in (("annot2", pixels), ("annot3", body)):
            wide = np.full((len(values), 28, values.shape[-1]), 1e4)
            wide[:, mpi.PLACES_OF_17_IN_28] = values
            content[name][camera] = wide.reshape(len(values), -1)
    return content


_CELLS = (("annot2", 2), ("annot3", 3))


def _write_annot(folder: Path, content: dict[str, Any]) -> None:
    variables = {}
    for name, cells in content.items():
        variables[name] = cells
        if isinstance(cells, list):
            variables[name] = np.empty((len(cells), 1), dtype=object)
            for index, cell in enumerate(cells):
                variables[name][index, 0] = cell
    savemat(folder / "annot.mat", variables, do_compression=True)


def _read_annot(folder: Path) -> Values:
    found = Recording(subject="S1", action="S1 Seq1", name="Seq1", files=(str(folder / "annot.mat"),))
    return of_sequences(mpi_inf_3dhp.read_recording(_RAW, found))


def _annot_data() -> dict[str, Any]:
    pixels, body, valid = mpi.made_up_test("TS1")
    return {"annot2": pixels[:, None], "annot3": body[:, None], "valid_frame": valid[:, None]}


def _write_annot_data(folder: Path, content: dict[str, Any]) -> None:
    file = folder / "annot_data.mat"
    with h5py.File(file, "w", userblock_size=512) as stream:
        for name, value in content.items():
            stream[name] = value
    _sign(file)


def _parse_annot_data(folder: Path) -> dict[str, Any]:
    """The numbers at their places in a sound file."""
    whole, sound = _annot_data(), folder / "sound"
    sound.mkdir()
    _write_annot_data(sound, whole)
    right, damaged = ((place / "annot_data.mat").read_bytes() for place in (sound, folder))
    found = {}
    for name, array in whole.items():
        at = right.find(np.ascontiguousarray(array).tobytes())
        found[name] = np.frombuffer(damaged[at : at + array.nbytes], dtype=array.dtype).reshape(array.shape)
    return found


def _read_annot_data(folder: Path) -> Values:
    found = Recording(subject="TS1", action="TS1", name="TS1", files=(str(folder / "annot_data.mat"),))
    return of_sequences(mpi_inf_3dhp.read_recording(_RAW, found))


FORMATS = (
    Format(
        name="Human3.6M npz",
        content=_h36m_npz,
        write=_write_h36m_npz,
        damaged=(POSES, CPN),
        read=_read_h36m_npz,
        mistype=retyped(_write_h36m_npz),
        legal=unchanged_part,
        hostile=hostile_pickles(POSES, in_npz("positions_3d"), "S1", (2, 4)) | npz_bombs(POSES, "positions_3d"),
    ),
    Format(
        name="Human3.6M h5 folder",
        content=_h36m_archive,
        write=_write_archive,
        damaged=tuple(f"h36m/{place}" for place in _PLACES[:2]),
        read=partial(_read_archive, False),
        judge=as_rewritten(_parse_archive, _write_archive, partial(_read_archive, False)),
        mistype=retyped(_write_archive),
    ),
    Format(
        name="Human3.6M h36m.zip",
        content=_h36m_archive,
        write=_write_zip,
        damaged=("h36m.zip",),
        read=partial(_read_archive, True),
        mistype=retyped(_write_zip),
    ),
    Format(
        name="Human3.6M cdf.mat 7, compressed",
        content=_official,
        write=partial(_write_mat5, True),
        damaged=("Walking.cdf.mat",),
        read=partial(_read_official, "Walking.cdf.mat"),
        mistype=retyped(partial(_write_mat5, True)),
    ),
    Format(
        name="Human3.6M cdf.mat 6",
        content=_official,
        write=partial(_write_mat5, False),
        damaged=("Walking.cdf.mat",),
        read=partial(_read_official, "Walking.cdf.mat"),
        judge=as_rewritten(_parse_mat5, partial(_write_mat5, False), partial(_read_official, "Walking.cdf.mat")),
        mistype=retyped(partial(_write_mat5, False)),
    ),
    Format(
        name="Human3.6M cdf.mat 7.3, compressed",
        content=_official,
        write=_write_mat73,
        damaged=("Walking.cdf.mat",),
        read=partial(_read_official, "Walking.cdf.mat"),
        mistype=retyped(_write_mat73),
    ),
    Format(
        name="Human3.6M cdf",
        content=_official,
        write=_write_cdf,
        damaged=("Walking.cdf",),
        read=partial(_read_official, "Walking.cdf"),
        judge=as_rewritten(_parse_cdf, _write_cdf, partial(_read_official, "Walking.cdf")),
        mistype=retyped(_write_cdf),
        runs_processes=True,
        seconds=180,
        weight=0.3,
    ),
    Format(
        name="MPI-INF-3DHP npz",
        content=_mpi_npz,
        write=_write_mpi_npz,
        damaged=("data_train_3dhp.npz", "data_test_3dhp.npz"),
        read=_read_mpi_npz,
        mistype=retyped(_write_mpi_npz),
        hostile=hostile_pickles("data_test_3dhp.npz", in_npz("data"), "TS1", (4,))
        | npz_bombs("data_train_3dhp.npz", "data"),
    ),
    Format(
        name="MPI-INF-3DHP annot.mat",
        content=_annot,
        write=_write_annot,
        damaged=("annot.mat",),
        read=_read_annot,
        mistype=retyped(_write_annot),
    ),
    Format(
        name="MPI-INF-3DHP annot_data.mat",
        content=_annot_data,
        write=_write_annot_data,
        damaged=("annot_data.mat",),
        read=_read_annot_data,
        judge=as_rewritten(_parse_annot_data, _write_annot_data, _read_annot_data),
        mistype=retyped(_write_annot_data),
    ),
)
