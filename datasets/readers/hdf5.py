"""Datasets of HDF5 files, which MATLAB's v7.3 files are too.

What a damaged file can do to the library is bounded: sizes are looked at before anything is read, datasets that lie in
other files are refused, and so are those of which parts are missing (HDF5 would fill them with zeros in silence).
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_MOST_BYTES = 2**31
"""Largest dataset that is read; those of the data sets read here have a few megabytes."""
_MOST_CELLS = 1000
_KINDS = "biuf"
_ADVICE = "Fetch it again; if it is whole, it is another file than expected."


class _RefusedError(Exception):
    """What was found in a file and is not read."""


def read_hdf5(source: Path | bytes, names: Sequence[str], where: Any = None) -> dict[str, np.ndarray]:
    """The named datasets of the root group, in the order of axes that HDF5 has (MATLAB's reversed).

    source: a file or the content of one, then `where` names it in messages. A dataset of references, MATLAB's cell
    array, becomes an object array of what they lead to. Raises ValueError if the file is no whole HDF5 file or lacks a
    dataset, or if one has no numbers, lies elsewhere or is incomplete.
    """
    where = source if where is None else where
    try:
        with h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r") as file:
            present = sorted(file)
            missing = [name for name in names if name not in present]
            found = {} if missing else {name: _read(file, name) for name in names}
    except _RefusedError as reason:
        raise ValueError(f"{where}: {reason}. {_ADVICE}") from None
    except Exception as error:
        # a damaged file raises whatever the bytes happen to mean to the library
        raise ValueError(
            f"{where} is damaged or cut ({type(error).__name__}: {error}); expected a whole HDF5 file. {_ADVICE}"
        ) from None
    if missing:
        raise ValueError(
            f"{where} lacks {', '.join(missing)} (it has {', '.join(present[:20]) or 'nothing'}). {_ADVICE}"
        )
    return found


def _read(file: h5py.File, name: str) -> np.ndarray:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise _RefusedError(f"{name} is a link to another place")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise _RefusedError(f"{name} is a {type(dataset).__name__.lower()}, expected a dataset")
    if h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference:
        return _numbers(dataset, name)
    if dataset.size > _MOST_CELLS:
        raise _RefusedError(f"{name} has {dataset.size} cells, at most {_MOST_CELLS} are read")
    _check_whole(dataset, name)
    cells = np.empty(dataset.shape, dtype=object)
    for index, reference in np.ndenumerate(dataset[()]):
        target = file[reference]
        if not isinstance(target, h5py.Dataset):
            raise _RefusedError(f"{name} leads to a {type(target).__name__.lower()}, expected a dataset")
        cells[index] = _numbers(target, f"{name}{list(index)}")
    return cells


def _numbers(dataset: h5py.Dataset, name: str) -> np.ndarray:
    dtype = dataset.dtype
    if dtype.kind not in _KINDS or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise _RefusedError(f"{name} holds {dtype}, expected plain numbers")
    _check_whole(dataset, name)
    return np.asarray(dataset[()])


def _check_whole(dataset: h5py.Dataset, name: str) -> None:
    if dataset.shape is None or dataset.is_virtual or dataset.external:
        raise _RefusedError(f"{name} has no content of its own")
    if dataset.nbytes > _MOST_BYTES:
        raise _RefusedError(f"{name} is said to have {dataset.nbytes / 2**30:.1f} GiB")
    if dataset.chunks is None:
        whole = dataset.id.get_storage_size() >= dataset.nbytes
    else:
        sizes = zip(dataset.shape, dataset.chunks, strict=True)
        whole = dataset.id.get_num_chunks() == np.prod([-(-size // chunk) for size, chunk in sizes])
    if not whole:
        raise _RefusedError(f"{name} of shape {dataset.shape} is incomplete")
