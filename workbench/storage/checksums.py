"""Checksums inside the files that the workbench writes, verified when they are read.

Tables and tensors that others wrote hold none, and are read without.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

CHECKSUM = "sha256"  # name of the entry that holds it
_DAMAGED = "its checksum is not that of its content"


def checksum_of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes and bits of tensors, and of the texts beside them."""
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """Return metadata without their checksum; raise `ValueError` if it is not that of the tensors and the rest."""
    rest = {key: text for key, text in metadata.items() if key != CHECKSUM}
    if metadata.get(CHECKSUM) not in (None, checksum_of_tensors(tensors, rest)):
        raise ValueError(_DAMAGED)
    return rest


def dump_object(content: Mapping[str, Any]) -> bytes:
    """Return an object as JSON that holds its checksum."""
    content = json.loads(json.dumps(content))  # keys that are numbers become texts, which sort otherwise
    return (json.dumps({**content, CHECKSUM: _checksum_of_object(content)}, indent=1, sort_keys=True) + "\n").encode()


def parse_object(text: bytes) -> dict[str, Any]:
    """Return the object that `dump_object` wrote.

    Raises
    ------
    ValueError
        If the text is not a JSON object, or its checksum is wrong or missing.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    if content.pop(CHECKSUM, None) != _checksum_of_object(content):
        raise ValueError(_DAMAGED)
    return content


def dump_table(table: pa.Table, **settings: Any) -> bytes:
    """Return a table as a parquet file that holds its checksum; `settings` are those of `pq.write_table`."""
    metadata = {**(table.schema.metadata or {}), CHECKSUM.encode(): _checksum_of_table(table).encode()}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, **settings)
    return buffer.getvalue()


def parse_table(content: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """Return the table of a parquet file.

    Parameters
    ----------
    content : bytes
        What `dump_table` returns, or any parquet file.
    schema : Schema, optional
        Columns to read, and their types.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If its checksum is wrong, or a column of the schema is missing.
    ArrowException
        If it is not a parquet file, or damaged.
    """
    table = pq.read_table(io.BytesIO(content))
    expected = (table.schema.metadata or {}).get(CHECKSUM.encode())
    if expected not in (None, _checksum_of_table(table).encode()):
        raise ValueError(_DAMAGED)
    if schema is None:
        return table
    if missing := [name for name in schema.names if name not in table.column_names]:
        raise ValueError(f"the column {missing[0]} is missing")
    return table.select(schema.names).cast(schema)


def _checksum_of_object(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksum_of_table(table: pa.Table) -> str:
    """Return the SHA-256 of names, types, values and metadata, which does not depend on the layout of the file."""
    metadata = table.schema.metadata or {}  # pandas reads names of columns from there
    others = sorted((key.hex(), text.hex()) for key, text in metadata.items() if key != CHECKSUM.encode())
    columns = json.dumps([[(field.name, str(field.type)) for field in table.schema], others])
    rows = pd.util.hash_pandas_object(table.replace_schema_metadata(None).to_pandas(), index=False)
    return hashlib.sha256(columns.encode() + rows.to_numpy().tobytes()).hexdigest()
