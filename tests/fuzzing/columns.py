"""Arrow and Parquet tables of which a column is not what it must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing.damage import Mistype


def columns(name: str) -> Mistype:
    """A column is dropped, renamed, doubled, emptied or of another type; or rows are removed, turned round or split."""

    def mistype(generator: np.random.Generator, folder: Path, content: Any) -> None:
        file = folder / name
        parquet = file.suffix == ".parquet"
        whole = pq.read_table(file) if parquet else pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()
        while True:
            try:
                table = _changed(generator, whole)
                if parquet:
                    pq.write_table(table, file, row_group_size=int(generator.integers(3, 100)))
                else:
                    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                        writer.write_table(table, max_chunksize=int(generator.choice([5, 10**6])))
                return
            except (pa.ArrowException, TypeError):  # no such conversion; take another one
                continue

    return mistype


def _changed(generator: np.random.Generator, table: pa.Table) -> pa.Table:
    place = int(generator.integers(table.num_columns))
    name, column = table.column_names[place], table.column(place)
    others: list[Any] = [pa.string(), pa.binary(), pa.float64(), pa.int8(), pa.float16(), pa.large_string(), pa.bool_()]
    others += [pa.list_(pa.float32()), pa.list_(pa.float64(), 34), pa.list_(pa.int32(), 17), pa.null()]
    match int(generator.integers(9)):
        case 0:
            return table.drop_columns([name])
        case 1:
            return table.rename_columns([*table.column_names[:place], "other", *table.column_names[place + 1 :]])
        case 2:
            return table.append_column(name, column)
        case 3:
            return table.set_column(place, name, pa.nulls(len(table), column.type))
        case 4:
            return table.slice(int(generator.integers(len(table))))
        case 5:
            return table.take(np.arange(len(table))[::-1])
        case 6:
            return table.slice(0, 0)
        case _:
            return table.set_column(place, name, column.cast(others[int(generator.integers(len(others)))]))
