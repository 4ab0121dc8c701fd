"""What posegrid itself writes and reads again, and images: stores, exports, parts, protocols, lists of checksums."""

import json
import re
import shutil
import struct
import tomllib
import zlib
from functools import lru_cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import image_stores
import numpy as np
import toy
from fuzzing.columns import columns
from fuzzing.damage import json_node, words
from fuzzing.formats import Format, Values, of_sequences
from fuzzing.keypoints import _deep_json as deep_json

from posegrid.datasets import parquet as exported
from posegrid.datasets.fetching.cmu import SUMS, _read_sums
from posegrid.datasets.images.files import read_crop
from posegrid.datasets.parts import encoded, piece_of, read_part, write_part
from posegrid.datasets.protocols import read_protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.sources import parquet
from posegrid.datasets.store import DESCRIPTION, FRAMES, SEQUENCES, open_store
from posegrid.datasets.store_writer import write_store


def _sequences() -> list[Any]:
    wanted = [("A", "walk", "walk 1"), ("A", "walk", "walk 2"), ("B", "walk", "walk 2"), ("C", "sit", "sit 1")]
    return [toy.sequence(*names, 4 + number, number) for number, names in enumerate(wanted)]


@lru_cache(maxsize=1)
def _made(as_parquet: bool) -> dict[str, bytes]:
    """The files of a store, or of its export."""
    folder = Path(mkdtemp())
    store = write_store(
        folder / "store", _sequences(), source="toy", source_config={}, skeleton=H36M_17, protocol=toy.PROTOCOL
    )
    if as_parquet:
        exported.export(store, folder / "export")
    found = {file.name: file.read_bytes() for file in (folder / ("export" if as_parquet else "store")).iterdir()}
    shutil.rmtree(folder)
    return found


def _put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _read_store(folder: Path) -> Values:
    store = open_store(folder)
    # copies: the folder goes away
    arrays = {name: np.array(getattr(store, name)) for name in ("keypoints", "confidence", "valid", "poses")}
    return {**arrays, "description": store.description, "sequences": [vars(row) for row in store.sequences]}


def _read_export(folder: Path) -> Values:
    config = parquet.Config()
    recordings = parquet.list_recordings(config, folder)
    origin = parquet.origin(config, recordings)
    found = of_sequences(sequence for each in recordings for sequence in parquet.read_recording(config, each))
    protocol = vars(parquet.protocol(config, recordings))
    return {**found, "protocol": protocol, "source": origin.source, "settings": origin.source_config}


def _write_part(folder: Path, sequences: list[Any]) -> None:
    write_part(folder / "one.part", encoded("key", [piece_of(sequence) for sequence in sequences]))


def _read_part(folder: Path) -> Values:
    pieces = read_part(folder / "one.part", "key", verify=True)
    if pieces is None:  # which means: read the recording again
        raise ValueError(f"{folder}: the part is damaged or of another recording, and is made again.")
    return {piece.name: {"row": piece.row, **{n: np.array(a) for n, a in piece.columns.items()}} for piece in pieces}


# -- text -------------------------------------------------------------------------------------------------------------

_PROTOCOL = (
    'train = ["S1", "S5", "S6"]\ntest = ["S9", "S11"]\nheld_out = ["S6"]\nexcluded = ["S11/Walking 1"]\nnote = "x"\n'
)


def _read_protocol(folder: Path) -> Values:
    return vars(read_protocol(folder / "split.toml"))


def _judge_protocol(folder: Path, values: Values) -> str:
    """By the standard library, which reads TOML there too: names of keys and types are what is judged."""
    found = tomllib.loads((folder / "split.toml").read_text(encoding="utf-8"))
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    wrong = [name for name in given if found.get(name) != given[name]] + sorted(set(found) - set(given))
    texts = all(isinstance(entry, str) for value in found.values() for entry in value)
    return f"not what the file says: {', '.join(wrong)}" if wrong or not texts else ""


def _deep_toml(folder: Path, mark: Path) -> None:
    (folder / "split.toml").write_text("train = " + "[" * 100_000 + "]" * 100_000)


def _sums() -> str:
    return "".join(f"{number:064x}  subjects/{number:02d}/{number:02d}_01.amc\n" for number in range(1, 9))


def _read_sums_of(folder: Path) -> Values:
    return dict(_read_sums(folder / SUMS))


def _judge_sums(folder: Path, values: Values) -> str:
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    whole = all(re.match(r"^[0-9a-f]{64}$", line[:64]) and line[64:66] in ("  ", " *") for line in lines)
    return "" if whole and {line[66:]: line[:64] for line in lines} == values else "not what the lines say"


def _write_text(name: str, folder: Path, text: str) -> None:
    (folder / name).write_text(text)


# -- images -----------------------------------------------------------------------------------------------------------


def _write_image(ending: str, folder: Path, content: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 30, (80, 100, 3), dtype=np.uint8)
    ramp = np.asarray(image_stores.ramp(100, 80, 3)) // 2
    image_stores.Image.fromarray(ramp + noise).save(folder / f"frame.{ending}")


def _read_image(ending: str, folder: Path) -> Values:
    box = np.array([10.0, 10, 40, 50])
    return {"crop": read_crop(folder / f"frame.{ending}", box, (48, 64), (100, 80), f"sequence {folder.name}, frame 0")}


def _judge_jpeg(folder: Path, values: Values) -> str:
    """Nothing in a JPEG file tells a damaged picture from another: only its shape can be judged."""
    crop = values["crop"]
    return "" if crop.shape == (64, 48, 3) and crop.dtype == np.uint8 else f"a crop of {crop.dtype} {crop.shape}"


def _png_bomb(folder: Path, mark: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(2**24))) + chunk(b"IEND", b"")
    (folder / "frame.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)


def _text_bomb(folder: Path, mark: Path) -> None:
    """A compressed comment of 256 MiB."""
    whole = (folder / "frame.png").read_bytes()
    data = b"Comment\x00\x00" + zlib.compress(bytes(2**28))
    text = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    (folder / "frame.png").write_bytes(whole[:33] + text + whole[33:])


def _sick_description(folder: Path, mark: Path) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps({**content, "skeleton": ["h36m_17"], "frames": 10**400}))


FORMATS = (
    Format(
        name="store, frames.arrow",
        content=lambda: _made(False),
        write=_put,
        damaged=(FRAMES,),
        read=_read_store,
        mistype=columns(FRAMES),
        weight=1.5,
    ),
    Format(
        name="store, sequences.arrow",
        content=lambda: _made(False),
        write=_put,
        damaged=(SEQUENCES,),
        read=_read_store,
        mistype=columns(SEQUENCES),
        weight=1.5,
    ),
    Format(
        name="store, store.json",
        content=lambda: _made(False),
        write=_put,
        damaged=(DESCRIPTION,),
        read=_read_store,
        mistype=json_node(DESCRIPTION),
        hostile={"deep": partial(deep_json, DESCRIPTION), "sick": _sick_description},
    ),
    Format(
        name="export, frames.parquet",
        content=lambda: _made(True),
        write=_put,
        damaged=(exported.FRAMES,),
        read=_read_export,
        mistype=columns(exported.FRAMES),
    ),
    Format(
        name="export, sequences.parquet",
        content=lambda: _made(True),
        write=_put,
        damaged=(exported.SEQUENCES,),
        read=_read_export,
        mistype=columns(exported.SEQUENCES),
    ),
    Format(
        name="export, store.json",
        content=lambda: _made(True),
        write=_put,
        damaged=(DESCRIPTION,),
        read=_read_export,
        mistype=json_node(DESCRIPTION),
        hostile={"deep": partial(deep_json, DESCRIPTION), "sick": _sick_description},
    ),
    Format(name="part file", content=_sequences, write=_write_part, damaged=("one.part",), read=_read_part),
    Format(
        name="protocol TOML",
        content=lambda: _PROTOCOL,
        write=partial(_write_text, "split.toml"),
        damaged=("split.toml",),
        read=_read_protocol,
        judge=_judge_protocol,
        mistype=words("split.toml"),
        hostile={"deep": _deep_toml},
    ),
    Format(
        name="SHA256SUMS",
        content=_sums,
        write=partial(_write_text, SUMS),
        damaged=(SUMS,),
        read=_read_sums_of,
        judge=_judge_sums,
        mistype=words(SUMS),
        weight=0.5,
    ),
    Format(
        name="PNG",
        content=lambda: None,
        write=partial(_write_image, "png"),
        damaged=("frame.png",),
        read=partial(_read_image, "png"),
        hostile={"60000 x 60000": _png_bomb, "comment of 256 MiB": _text_bomb},
    ),
    Format(
        name="JPEG",
        content=lambda: None,
        write=partial(_write_image, "jpg"),
        damaged=("frame.jpg",),
        read=partial(_read_image, "jpg"),
        judge=_judge_jpeg,
    ),
)
