"""Named arrays in one HDF5 file: the weights of a model, or everything that a checkpoint holds.

Keras' own .weights.h5 numbers some layers by the order of their creation, so that it can load the wrong matrix without
a warning. Here every array has its full name, shape, type and checksum, and any mismatch is an error.

A file may come from anywhere. It begins with a checksum, which is compared before HDF5 opens it. Arrays that are
compressed or stored elsewhere are refused, so that a file cannot expand to more bytes than it has.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nmt.errors import FormatError, UserError, suggest_name
from nmt.files import atomic_write, compute_digest, compute_file_digest, start_digest

FORMAT = 1
# HDF5 leaves these bytes at the start of a file to its user. The first files of format 1 begin without them.
HEADER_BYTES = 512
HEADER = re.compile(rb"nmt arrays\nblake2b (?P<digest>[0-9a-f]{32})\n")
# Many times as many as a checkpoint has.
MAX_ITEMS, MAX_DEPTH = 10_000, 16


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> None:
    """Writes arrays and facts to a file atomically.

    Args:
        path: the file, which is replaced if it exists.
        arrays: by name; slashes in a name make HDF5 groups.
        facts: anything that JSON can hold, by name.

    Raises:
        UserError: the file cannot be written.
    """
    # Built in memory, since HDF5 ends the process with a segmentation fault if the disk is full.
    memory = io.BytesIO()
    with h5py.File(memory, "w", userblock_size=HEADER_BYTES) as file:
        file.attrs["format"] = FORMAT
        file.attrs["facts"] = text = json.dumps(dict(facts or {}))
        file.attrs["facts_checksum"] = compute_digest(text.encode())
        file.attrs["names_checksum"] = _names_digest(arrays)
        for name, array in arrays.items():
            file.create_dataset(name, data=array).attrs["checksum"] = _checksum(array)
    content = memory.getbuffer()
    header = b"nmt arrays\nblake2b %s\n" % start_digest(content[HEADER_BYTES:]).hexdigest().encode()
    content[: len(header)] = header
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and facts that `save_arrays` wrote.

    Raises:
        FormatError: another version of nmt wrote the file.
        UserError: the file does not exist, is damaged, or holds anything but arrays.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        _check_digest(path)
        with h5py.File(path, "r") as file:
            _check_format(path, file.attrs.get("format"))
            arrays = {name: _read(path, name, item) for name, item in _list_stored(path, file).items()}
            # The first files of format 1 have no checksum of their names.
            if file.attrs.get("names_checksum", _names_digest(arrays)) != _names_digest(arrays):
                raise UserError(f"{path} is damaged: the checksum of its names does not match them.")
            return arrays, _read_facts(path, file.attrs)
    except UserError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError) as error:  # HDF5's, when damaged
        raise UserError(f"{path} is damaged or not a weights file: {error}") from error


def assign_arrays(variables: Iterable[Any], arrays: Mapping[str, np.ndarray], origin: object) -> None:
    """Assigns to each Keras variable the array named by its path. If any of them does not fit, none is assigned.

    Args:
        variables: the variables.
        arrays: by path.
        origin: where the arrays come from, for messages.

    Raises:
        UserError: an array is missing, left over or of another shape.
    """
    expected = index_by_path(variables)
    for name in expected.keys() - arrays.keys():
        raise UserError(f"{origin} has no weight {name}. It was saved by a model of another architecture.")
    for name in arrays.keys() - expected.keys():
        hint = suggest_name(name, expected)
        raise UserError(
            f"{origin} has a weight {name}, which this model lacks. It was saved by a model of another architecture."
            f"{hint}"
        )
    for name, variable in expected.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise UserError(
                f"{origin}: weight {name} has shape {list(arrays[name].shape)}, but this model expects "
                f"{list(variable.shape)}. It was saved by a model of another architecture."
            )
    for name, variable in expected.items():
        variable.assign(arrays[name])


def get_arrays(variables: Iterable[Any]) -> dict[str, np.ndarray]:
    """Returns the values of Keras variables by path."""
    return {path: np.asarray(variable.value) for path, variable in index_by_path(variables).items()}


def average_arrays(sets: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the mean of floating-point arrays of the same names, shapes and types, by name.

    The sets are added up in order, so that an iterator need not hold more than one at a time.
    """
    sums: dict[str, np.ndarray] = {}
    count = 0
    for arrays in sets:
        sums = {name: sums.get(name, 0) + arrays[name] for name in sums or arrays}
        count += 1
    return {name: total / count for name, total in sums.items()}


def index_by_path(variables: Iterable[Any]) -> dict[str, Any]:
    """Returns Keras variables by path. Raises ValueError if two have the same path: one of them would be lost."""
    found: dict[str, Any] = {}
    for variable in variables:
        if variable.path in found:
            raise ValueError(f"Two variables have the path {variable.path}. Give their layers different names.")
        found[variable.path] = variable
    return found


def _check_digest(path: Path) -> None:
    """Raises UserError if a file is damaged. HDF5 itself may crash or hang on such a file."""
    with path.open("rb") as file:
        header = HEADER.match(file.read(HEADER_BYTES))
    if header and compute_file_digest(path, HEADER_BYTES) != header["digest"].decode():
        raise UserError(f"{path} is damaged: its checksum does not match its content. Copy it again.")


def _list_stored(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """Returns the arrays of a file by name, without reading them.

    Raises:
        UserError: something is not an array in this file, or the file has fewer bytes than it declares.
    """
    found: dict[str, h5py.Dataset] = {}
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    num_items = 0
    while waiting:
        prefix, group = waiting.pop()
        num_items += len(group)
        if num_items > MAX_ITEMS or prefix.count("/") > MAX_DEPTH:
            raise UserError(
                f"{path} is not a file of nmt: expected at most {MAX_ITEMS:,} arrays and groups, nested at most "
                f"{MAX_DEPTH} deep."
            )
        for key in group:
            name = f"{prefix}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise UserError(f"{path} is not a file of nmt: {name} is a link to another place.")
            item = group[key]
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", item))
            else:
                _check_stored(path, name, item)
                found[name] = item
    if (size := sum(item.nbytes for item in found.values())) > (held := path.stat().st_size):
        raise UserError(f"{path} is not a file of nmt: its {held:,} bytes declare arrays of {size:,} bytes.")
    return found


def _check_stored(path: Path, name: str, item: Any) -> None:
    """Raises UserError unless an item is an array of numbers that is stored in the file itself, uncompressed."""
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
        raise UserError(f"{path} is not a file of nmt: {name} is not an array of numbers.")
    if item.is_virtual or item.external:
        raise UserError(f"{path} is not a file of nmt: the values of {name} are in another file.")
    if item.chunks is not None or item.id.get_storage_size() != item.nbytes:
        raise UserError(
            f"{path} is not a file of nmt: {name} declares {item.nbytes:,} bytes and is stored in "
            f"{item.id.get_storage_size():,}."
        )


def _read(path: Path, name: str, item: h5py.Dataset) -> np.ndarray:
    array = item[()]
    if item.attrs.get("checksum") != _checksum(array):
        raise UserError(f"{path} is damaged: the checksum of {name} does not match its values.")
    return array


def _read_facts(path: Path, attributes: Any) -> dict[str, Any]:
    text = attributes["facts"]
    if not isinstance(text, str):
        raise UserError(f"{path} is damaged: its facts are not text.")
    # The first files of format 1 have no checksum of their facts.
    if attributes.get("facts_checksum", compute_digest(text.encode())) != compute_digest(text.encode()):
        raise UserError(f"{path} is damaged: the checksum of its facts does not match them.")
    facts = json.loads(text)
    if not isinstance(facts, dict):
        raise UserError(f"{path} is damaged: its facts have no names.")
    return facts


def _check_format(path: Path, found: Any) -> None:
    if found is None:
        raise UserError(f"{path} was not written by nmt: it has no format number.")
    if found != FORMAT:
        raise FormatError(f"{path} has format {found}, but this version of nmt reads format {FORMAT}. Update nmt.")


def _checksum(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    header = f"{array.dtype.str}{array.shape}".encode()
    return compute_digest(header + array.tobytes())


def _names_digest(names: Iterable[str]) -> str:
    return compute_digest("\n".join(sorted(names)).encode())
