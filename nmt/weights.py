"""Named arrays in one HDF5 file: the weights of a model, and all that a checkpoint holds.

Keras' own .weights.h5 numbers some layers by the order in which they were made and can load the wrong matrix in
silence. Here every array carries its full name, shape, type and checksum, and whatever does not fit is an error.
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
    """Writes arrays by name, and facts that JSON can hold, to a file that is whole or absent."""
    # Made in memory: on a disk that is full, HDF5 itself ends in a segmentation fault.
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
    """Reads what `save_arrays` wrote.

    Raises:
        UserError: there is no such file, it is of another format, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            _check_format(path, file.attrs.get("format"))
            arrays: dict[str, np.ndarray] = {}
            file.visititems(lambda name, item: _read(path, name, item, arrays))
            # Files of the first months have no checksum of their names.
            if file.attrs.get("names_checksum", _names_digest(arrays)) != _names_digest(arrays):
                raise UserError(f"{path} is damaged: the names of its arrays are not those that were written.")
            return arrays, _read_facts(path, file.attrs)
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # whatever a flipped byte makes of HDF5
        raise UserError(f"{path} is damaged or no file of weights: {error}") from error


def assign_arrays(variables: Iterable[Any], arrays: Mapping[str, np.ndarray], origin: object) -> None:
    """Gives Keras variables the arrays of their paths, all or none.

    Raises:
        UserError: an array is missing, left over, or of another shape; the variables are left as they were.
    """
    expected = index_by_path(variables)
    for name in expected.keys() - arrays.keys():
        raise UserError(f"{origin} has no weight {name}; it was saved by a model of another architecture.")
    for name in arrays.keys() - expected.keys():
        hint = suggest_name(name, expected)
        raise UserError(f"{origin} has a weight {name} that this model lacks: another architecture.{hint}")
    for name, variable in expected.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise UserError(
                f"{origin}: weight {name} has shape {list(arrays[name].shape)}, but this model expects "
                f"{list(variable.shape)}: another architecture."
            )
    for name, variable in expected.items():
        variable.assign(arrays[name])


def get_arrays(variables: Iterable[Any]) -> dict[str, np.ndarray]:
    """The values of Keras variables by their paths."""
    return {path: np.asarray(variable.value) for path, variable in index_by_path(variables).items()}


def index_by_path(variables: Iterable[Any]) -> dict[str, Any]:
    """Keras variables by their paths, which must differ: of two with one path, one would be lost in silence."""
    found: dict[str, Any] = {}
    for variable in variables:
        if variable.path in found:
            raise ValueError(f"Two variables have the path {variable.path}; their layers need names of their own.")
        found[variable.path] = variable
    return found


def _read(path: Path, name: str, item: Any, arrays: dict[str, np.ndarray]) -> None:
    if not isinstance(item, h5py.Dataset):
        return
    array = item[()]
    if item.attrs.get("checksum") != _checksum(array):
        raise UserError(f"{path} is damaged: the checksum of {name} does not fit its values.")
    arrays[name] = array


def _read_facts(path: Path, attributes: Any) -> dict[str, Any]:
    text = attributes["facts"]
    # Files of the first months have no checksum of their facts.
    if attributes.get("facts_checksum", compute_digest(text.encode())) != compute_digest(text.encode()):
        raise UserError(f"{path} is damaged: the checksum of its facts does not fit.")
    return json.loads(text)


def _check_format(path: Path, found: Any) -> None:
    if found is None:
        raise UserError(f"{path} holds no weights of this toolkit: it has no format number.")
    if found != FORMAT:
        raise UserError(f"{path} has format {found}; this version reads format {FORMAT}. Update the toolkit.")


def _checksum(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    header = f"{array.dtype.str}{array.shape}".encode()
    return compute_digest(header + array.tobytes())


def _names_digest(names: Iterable[str]) -> str:
    return compute_digest("\n".join(sorted(names)).encode())
