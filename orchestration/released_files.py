"""Reads checkpoints as their authors released them, without running anything of them.

Beside weights such files hold what training left: optimizer state, numbers of NumPy, states of random generators. These
are read as nothing; any other object is refused. Files of Keras (HDF5) are read too.
"""

import hashlib
import re
import warnings
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

_HDF5 = b"\x89HDF\r\n\x1a\n"
_NUMPY = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.random.__RandomState_ctor",
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "bit_generator", "generator")),
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
    "numpy.random.bit_generator.SeedSequence",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
)
"""What pickles of NumPy's numbers, arrays and random generators name, in old and new versions of NumPy."""
_MOST_BYTES = 2**31
"""Largest weight that is read of a Keras file; released ones have a few megabytes."""


class _Unread:
    """Stands for an object of NumPy: takes whatever a file gives it and keeps nothing."""

    def __new__(cls, *_: Any) -> "_Unread":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class KerasLayers:
    """What a Keras file holds."""

    layers: dict[str, list[tuple[str, Tensor]]]
    """Weights of each layer, (name, tensor), in the order of the file."""


def sha256(file: Path) -> str:
    """Of the bytes of a file. Raises ValueError if there is none."""
    if not file.is_file():
        raise ValueError(f"checkpoint {file} does not exist. Give the path of a file that was downloaded.")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_released(file: Path) -> Any:
    """What a released file holds: tensors and plain data of a file of PyTorch (also of versions before 1.6), or
    `KerasLayers`.

    Raises ValueError if the file is damaged, or names an object that is neither a tensor nor plain data nor NumPy's; in
    that case nothing of it has been run.
    """
    with file.open("rb") as stream:
        if stream.read(len(_HDF5)) == _HDF5:
            return _read_keras(file)
    try:
        # other versions of pickle's protocol are warned of; what they add is refused anyway
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Unread, name) for name in _NUMPY]):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise ValueError(
                f"{file} names {named[1]}; only tensors, plain data and numbers of NumPy are read, because a pickle "
                "can run any code. Nothing of it was run. Give a file of weights (a state dict) from its authors."
            ) from None
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
        raise ValueError(
            f"{file} is damaged, cut, or no checkpoint ({type(error).__name__}: {reason}). Expected is a file that "
            "torch.save wrote: download it again."
        ) from None


def _read_keras(file: Path) -> KerasLayers:
    try:
        with h5py.File(file, "r") as root:
            held = root["model_weights"] if "layer_names" not in root.attrs and "model_weights" in root else root
            return KerasLayers(layers={name: _layer(held, name) for name in _texts(held, "layer_names")})
    except Exception as error:  # a damaged file raises whatever the bytes happen to mean to the library
        raise ValueError(
            f"{file} is damaged, cut, or no file of weights from Keras ({type(error).__name__}: {error}). Expected are "
            "layer_names, and weight_names of every layer: download it again."
        ) from None


def _layer(held: h5py.Group, name: str) -> list[tuple[str, Tensor]]:
    weights = []
    for weight in _texts(held[name], "weight_names"):
        dataset = held[name][weight]
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f" or dataset.nbytes > _MOST_BYTES:
            raise ValueError(f"{name}/{weight} is no array of numbers of a usual size")
        if dataset.file.filename != held.file.filename or dataset.external or dataset.is_virtual:
            raise ValueError(f"{name}/{weight} lies in another file")
        weights.append((weight, torch.from_numpy(dataset[()].astype(np.float32))))
    return weights


def _texts(group: h5py.Group, name: str) -> list[str]:
    """A list of names, which Keras cuts into several attributes if it is long."""
    several = takewhile(group.attrs.__contains__, (f"{name}{part}" for part in count()))
    parts = [name] if name in group.attrs else list(several)
    if not parts:
        raise ValueError(f"{group.name} has no {name}")
    texts = (text for part in parts for text in group.attrs[part])
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
