import h5py
import keras
import numpy as np
import pytest

from nmt import weights
from nmt.errors import UserError
from nmt.weights import HEADER_BYTES, assign_arrays, get_arrays, load_arrays, save_arrays

ARRAYS = {
    "seq2seq/encoder/kernel": np.random.default_rng(1).normal(size=(3, 5)).astype("float32"),
    "seq2seq/encoder/bias": np.arange(7.0),
    "half": np.array([[0.5, -2]], dtype="float16"),
    "iterations": np.array(0x1234567890ABCDEF),
    "empty": np.zeros((0, 3), dtype="int32"),
}


@pytest.fixture
def path(tmp_path):
    save_arrays(tmp_path / "weights.h5", ARRAYS, {"update": 7, "versions": {"nmt": "0.1.0"}})
    return tmp_path / "weights.h5"


def test_arrays_and_facts_are_read_as_they_were_written(path):
    arrays, facts = load_arrays(path)
    assert facts == {"update": 7, "versions": {"nmt": "0.1.0"}}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


def test_facts_are_optional(tmp_path):
    save_arrays(tmp_path / "a.h5", {})
    assert load_arrays(tmp_path / "a.h5") == ({}, {})


def remove_header(content: bytes) -> bytes:
    """Returns a file as the first ones of format 1 are: without a checksum of the whole file."""
    return bytes(HEADER_BYTES) + content[HEADER_BYTES:]


@pytest.mark.parametrize("name", ["seq2seq/encoder/kernel", "half", "iterations"])
def test_a_flipped_bit_in_an_array_is_reported(path, name):
    content = bytearray(path.read_bytes())
    values = ARRAYS[name].tobytes()
    assert content.count(values) == 1
    content[content.index(values) + len(values) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights.h5 is damaged: its checksum does not match its content\. Copy it"):
        load_arrays(path)
    path.write_bytes(remove_header(content))
    with pytest.raises(UserError, match=f"weights.h5 is damaged: the checksum of {name} does not match its values"):
        load_arrays(path)


def test_a_damaged_file_is_not_opened_by_hdf5(path, monkeypatch):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(h5py, "File", lambda *_: pytest.fail("opened"))
    with pytest.raises(UserError, match="its checksum does not match its content"):
        load_arrays(path)


def test_a_flipped_bit_anywhere_is_reported_or_changes_nothing(path):
    """In names, shapes, facts, and in the structures of HDF5."""
    whole, arrays, facts = remove_header(path.read_bytes()), *load_arrays(path)
    random, found = np.random.default_rng(1), 0
    for place in random.integers(HEADER_BYTES, len(whole), size=400):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            read, told = load_arrays(path)
        except UserError:
            found += 1
            continue
        assert told == facts
        assert {name: a.tobytes() for name, a in read.items()} == {name: a.tobytes() for name, a in arrays.items()}
    assert found


def test_changed_facts_are_reported(path):
    path.write_bytes(remove_header(path.read_bytes()))
    with h5py.File(path, "r+") as file:
        file.attrs["facts"] = file.attrs["facts"].replace("7", "8")
    with pytest.raises(UserError, match="the checksum of its facts does not match them"):
        load_arrays(path)


def test_a_truncated_file_is_reported(path):
    for whole in (path.read_bytes(), remove_header(path.read_bytes())):
        path.write_bytes(whole[:-100])
        with pytest.raises(UserError, match=r"weights.h5 is damaged(: its checksum| or not a weights file: )"):
            load_arrays(path)


def test_another_kind_of_file_is_reported(tmp_path):
    (tmp_path / "weights.h5").write_text("weights")
    with pytest.raises(UserError, match=r"weights.h5 is damaged or not a weights file: "):
        load_arrays(tmp_path / "weights.h5")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*weights.h5"):
        load_arrays(tmp_path / "weights.h5")


def test_files_of_other_programs_are_refused(tmp_path):
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file.create_dataset("kernel", data=np.zeros(3))
    with pytest.raises(UserError, match=r"keras.h5 was not written by nmt: it has no format number"):
        load_arrays(tmp_path / "keras.h5")


def test_a_newer_format_asks_for_an_update(path):
    path.write_bytes(remove_header(path.read_bytes()))
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 2
    with pytest.raises(UserError, match=r"has format 2, but this version of nmt reads format 1\. Update nmt"):
        load_arrays(path)


def make_link(file):
    file["a"] = h5py.SoftLink("/elsewhere")


def make_external_link(file):
    file["a"] = h5py.ExternalLink("/etc/passwd", "/")


def make_external_storage(file):
    file.create_dataset("a", shape=(8,), dtype="u1", external=[("/etc/passwd", 0, 8)])


def make_virtual(file):
    layout = h5py.VirtualLayout((8,), "u1")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "a", (8,))
    file.create_virtual_dataset("a", layout)


def make_compressed(file):
    file.create_dataset("a", shape=(1 << 33,), dtype="u1", chunks=(1 << 20,), compression="gzip")


def make_unwritten(file):
    file.create_dataset("a", shape=(1 << 33,), dtype="u1")


def make_text(file):
    file["a"] = ["text", "of any length"]


def make_deep(file):
    for _ in range(100):
        file = file.create_group("a")


def make_cycle(file):
    file["a"] = file["/"]


def make_lattice(file):
    """Makes 30 groups, each with two names in the one above, so that there are 2^30 paths."""
    for _ in range(30):
        file = file.create_group("a")
        file.parent["b"] = file


def make_type(file):
    file["a"] = np.dtype("f4")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_link, "a is a link to another place"),
        (make_external_link, "a is a link to another place"),
        (make_external_storage, "the values of a are in another file"),
        (make_virtual, "the values of a are in another file"),
        (make_compressed, "a declares 8,589,934,592 bytes and is stored in 0"),
        (make_unwritten, "a declares 8,589,934,592 bytes and is stored in 0"),
        (make_text, "a is not an array of numbers"),
        (make_type, "a is not an array of numbers"),
        (make_deep, "nested at most 16 deep"),
        (make_cycle, "nested at most 16 deep"),
        (make_lattice, "nested at most 16 deep"),
    ],
)
def test_declarations_beyond_the_content_of_the_file_are_refused(tmp_path, make, words):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["format"] = 1
        make(file)
    with pytest.raises(UserError, match=rf"a\.h5 is not a file of nmt: .*{words}"):
        load_arrays(tmp_path / "a.h5")


def test_too_many_groups_are_refused(path, monkeypatch):
    monkeypatch.setattr(weights, "MAX_ITEMS", 5)
    with pytest.raises(UserError, match="is not a file of nmt: expected at most 5 arrays and groups"):
        load_arrays(path)


def test_arrays_that_share_their_bytes_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["format"] = 1
        file["a0"] = np.zeros(10_000)
        for number in range(1, 100):
            file[f"a{number}"] = file["a0"]
    with pytest.raises(UserError, match=r"a\.h5 is not a file of nmt: its .* bytes declare arrays of 8,000,000 bytes"):
        load_arrays(tmp_path / "a.h5")


@pytest.mark.parametrize("facts", ["[]", "[" * 100_000, 7])
def test_facts_of_another_kind_are_reported(tmp_path, facts):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["format"] = 1
        file.attrs.create("facts", facts, dtype=None if facts == 7 else h5py.string_dtype())
    with pytest.raises(UserError, match=r"a\.h5 is damaged"):
        load_arrays(tmp_path / "a.h5")


def test_a_failed_save_leaves_the_older_file(path):
    with pytest.raises(TypeError):
        save_arrays(path, ARRAYS, {"not for JSON": object()})
    assert load_arrays(path)[1]["update"] == 7
    assert list(path.parent.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"Cannot write .*file/weights.h5"):
        save_arrays(tmp_path / "file" / "weights.h5", ARRAYS)


@pytest.fixture
def variables():
    """A kernel [3, 5] and a bias [7], all zeros."""
    with keras.name_scope("seq2seq"), keras.name_scope("encoder"):
        return [
            keras.Variable(np.zeros((3, 5), "float32"), name="kernel"),
            keras.Variable(np.zeros(7, "float32"), name="bias"),
        ]


def make_arrays(**changes):
    arrays = {f"seq2seq/encoder/{name}": ARRAYS[f"seq2seq/encoder/{name}"] for name in ("kernel", "bias")}
    return {**arrays, **changes}


def test_variables_get_the_arrays_of_their_paths(variables):
    assign_arrays(variables, dict(reversed(make_arrays().items())), "a.h5")
    found = get_arrays(variables)
    assert found.keys() == make_arrays().keys()
    for name, array in make_arrays().items():
        np.testing.assert_array_equal(found[name], array.astype("float32"), strict=True)


def assert_refused(variables, arrays, words):
    with pytest.raises(UserError, match=words):
        assign_arrays(variables, arrays, "a.h5")
    assert not any(array.any() for array in get_arrays(variables).values())


def test_a_missing_weight_is_named_and_nothing_assigned(variables):
    arrays = make_arrays()
    del arrays["seq2seq/encoder/bias"]
    words = r"^a.h5 has no weight seq2seq/encoder/bias\. It was saved by a model of another architecture"
    assert_refused(variables, arrays, words)


def test_an_unknown_weight_is_named_with_the_closest_name_and_nothing_assigned(variables):
    arrays = make_arrays(**{"seq2seq/encoder/kernels": np.ones(3)})
    words = (
        r"^a.h5 has a weight seq2seq/encoder/kernels, which this model lacks\. It was saved by a model of another "
        r"architecture\. "
        r"Did you mean 'seq2seq/encoder/kernel'\?"
    )
    assert_refused(variables, arrays, words)


@pytest.mark.parametrize("shape", [(5, 3), (15,), (3, 5, 1)], ids=str)
def test_a_weight_of_another_shape_is_named_and_nothing_assigned(variables, shape):
    # The kernel stands first and the bias would fit, so that neither order of assignment could hide behind the other.
    for name, size in (("kernel", shape), ("bias", (1, *shape))):
        arrays = make_arrays(**{f"seq2seq/encoder/{name}": np.ones(size)})
        words = (
            rf"^a.h5: weight seq2seq/encoder/{name} has shape \[{', '.join(map(str, size))}\], but this model expects"
        )
        assert_refused(variables, arrays, words)
