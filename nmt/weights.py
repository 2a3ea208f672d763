"""Named arrays in one HDF5 file: the weights of a model, or everything that a checkpoint holds.

Keras' own .weights.h5 numbers some layers by the order of their creation, so that it can load the wrong matrix without
a warning. Here every array has its full name, shape, type and checksum, and any mismatch is an error.
"""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nmt.errors import UserError, suggest_name
from nmt.files import atomic_write, compute_digest

FORMAT = 1


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
    with h5py.File(memory, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["facts"] = text = json.dumps(dict(facts or {}))
        file.attrs["facts_checksum"] = compute_digest(text.encode())
        file.attrs["names_checksum"] = _names_digest(arrays)
        for name, array in arrays.items():
            file.create_dataset(name, data=array).attrs["checksum"] = _checksum(array)
    with atomic_write(path) as aside:
        aside.write_bytes(memory.getbuffer())


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and facts that `save_arrays` wrote.

    Raises:
        UserError: the file does not exist, has another format or is damaged.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            _check_format(path, file.attrs.get("format"))
            arrays: dict[str, np.ndarray] = {}
            file.visititems(lambda name, item: _read(path, name, item, arrays))
            # The first files of format 1 have no checksum of their names.
            if file.attrs.get("names_checksum", _names_digest(arrays)) != _names_digest(arrays):
                raise UserError(f"{path} is damaged: the checksum of its names does not match them.")
            return arrays, _read_facts(path, file.attrs)
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # whatever HDF5 raises for a damaged file
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


def index_by_path(variables: Iterable[Any]) -> dict[str, Any]:
    """Returns Keras variables by path. Raises ValueError if two have the same path: one of them would be lost."""
    found: dict[str, Any] = {}
    for variable in variables:
        if variable.path in found:
            raise ValueError(f"Two variables have the path {variable.path}. Give their layers different names.")
        found[variable.path] = variable
    return found


def _read(path: Path, name: str, item: Any, arrays: dict[str, np.ndarray]) -> None:
    if not isinstance(item, h5py.Dataset):
        return
    array = item[()]
    if item.attrs.get("checksum") != _checksum(array):
        raise UserError(f"{path} is damaged: the checksum of {name} does not match its values.")
    arrays[name] = array


def _read_facts(path: Path, attributes: Any) -> dict[str, Any]:
    text = attributes["facts"]
    # The first files of format 1 have no checksum of their facts.
    if attributes.get("facts_checksum", compute_digest(text.encode())) != compute_digest(text.encode()):
        raise UserError(f"{path} is damaged: the checksum of its facts does not match them.")
    return json.loads(text)


def _check_format(path: Path, found: Any) -> None:
    if found is None:
        raise UserError(f"{path} was not written by nmt: it has no format number.")
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, but this version of nmt reads format {FORMAT}. Update nmt.")


def _checksum(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    header = f"{array.dtype.str}{array.shape}".encode()
    return compute_digest(header + array.tobytes())


def _names_digest(names: Iterable[str]) -> str:
    return compute_digest("\n".join(sorted(names)).encode())
