"""Programs in exports that do more than translate, and exports that are damaged, are refused before they are opened."""

import json
import shutil
from pathlib import Path

import flatbuffers
import pytest
import tensorflow
from ai_edge_litert import schema_py_generated as schema
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from typer.testing import CliRunner

from nmt.cli.main import app
from nmt.errors import UserError
from nmt.translators.opening import open_translator
from nmt.translators.savedmodel import import_tensorflow
from nmt.translators.untrusted import OPERATIONS, SAVER_OPERATIONS, check_litert, check_meta_graph

FORBIDDEN = ("WriteFile", "ReadFile", "MatchingFiles", "ImmutableConst", "InitializeTableFromTextFileV2", "PrintV2")
PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


def add_function(meta_graph: MetaGraphDef, name: str, operation: str):
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = name
    function.node_def.add(name="Relu", op="Relu")
    return function, function.node_def.add(name="last", op=operation)


def add_object(meta_graph: MetaGraphDef, function: str) -> None:
    meta_graph.object_graph_def.nodes.add().bare_concrete_function.concrete_function_name = function


def assert_refused(meta_graph: MetaGraphDef, words: str) -> None:
    with pytest.raises(UserError, match=rf"^x\.pb was not opened, because it contains {words}"):
        check_meta_graph(meta_graph, Path("x.pb"))


@pytest.mark.parametrize("operation", [*FORBIDDEN, *PYTHON, "OurOwnOperation", "RestoreV2"])
def test_an_operation_that_does_more_than_compute_is_named_wherever_it_is(operation):
    graph = MetaGraphDef()
    graph.graph_def.node.add(name="x", op=operation)
    assert_refused(graph, f"the operation {operation}, ")
    function = MetaGraphDef()
    add_function(function, "__inference_f_1", operation)
    add_object(function, "__inference_f_1")
    assert_refused(function, f"the operation {operation}, ")
    # A function may have any name, also that of an operation.
    add_function(graph, operation, "Relu")
    assert_refused(graph, f"the operation {operation}, ")


@pytest.mark.parametrize("operation", FORBIDDEN)
def test_a_function_that_nothing_calls_is_checked_too(operation):
    graph = MetaGraphDef()
    add_function(graph, "__inference_f_1", operation)
    assert_refused(graph, f"the operation {operation}, ")


@pytest.mark.parametrize("operation", sorted(SAVER_OPERATIONS))
def test_operations_of_the_saver_are_allowed_where_python_cannot_call_them(operation):
    graph = MetaGraphDef()
    saver, _ = add_function(graph, "__inference__traced_restore_1", operation)
    add_function(graph, "f", "Relu")
    add_object(graph, "f")
    check_meta_graph(graph, Path("x.pb"))
    # TensorFlow may run one implementation of the same interface in place of another.
    saver.attr["api_implements"].s = b"anything"
    assert_refused(graph, f"the operation {operation}, ")


@pytest.mark.parametrize("call", ["PartitionedCall", "StatelessCase", "object"])
def test_a_saver_that_is_called_is_refused(call):
    graph = MetaGraphDef()
    add_function(graph, "saver", "SaveV2")
    _, node = add_function(graph, "caller", "PartitionedCall" if call == "object" else call)
    if call == "PartitionedCall":
        node.attr["f"].func.name = "saver"
    elif call == "StatelessCase":
        node.attr["branches"].list.func.add(name="saver")
    else:
        graph.object_graph_def.nodes.add().function.concrete_functions.append("saver")
    add_object(graph, "caller")
    assert_refused(graph, "the operation SaveV2, ")


def test_objects_that_other_code_restores_are_refused():
    for kind, words in (("asset", "asset"), ("class", "_tf_keras_model"), ("registered", "Package>Layer")):
        graph = MetaGraphDef()
        one = graph.object_graph_def.nodes.add()
        if kind == "asset":
            one.asset.asset_file_def_index = 0
        else:
            one.user_object.identifier = words if kind == "class" else "_generic_user_object"
        if kind == "registered":
            one.registered_name = words
        assert_refused(graph, f"an object of kind '{words}'")


def test_every_allowed_operation_exists():
    import_tensorflow()
    from tensorflow.python.framework import op_def_registry

    assert [name for name in OPERATIONS | SAVER_OPERATIONS if op_def_registry.get(name) is None] == []


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """Copies an export without its digests, which whoever changes a file would change as well."""
    folder = Path(shutil.copytree(exported.version, tmp_path / "1"))
    record = json.loads((folder / "assets.extra" / "export.json").read_text())
    assert len(record.pop("digests")) == 5
    (folder / "assets.extra" / "export.json").write_text(json.dumps(record))
    return folder


def test_no_command_runs_a_graph_that_writes_a_file(copy, tmp_path):
    path, written = copy / "saved_model.pb", tmp_path / "written"
    saved = SavedModel.FromString(path.read_bytes())
    functions = {one.signature.name: one for one in saved.meta_graphs[0].graph_def.library.function}
    [initializer] = [one for name, one in functions.items() if "_initializer_" in name]  # runs when it is loaded
    for name, text in (("name", str(written)), ("text", "owned")):
        constant = initializer.node_def.add(name=name, op="Const")
        constant.attr["dtype"].type = constant.attr["value"].tensor.dtype = DT_STRING
        constant.attr["value"].tensor.tensor_shape.SetInParent()
        constant.attr["value"].tensor.string_val.append(text.encode())
    initializer.node_def.add(name="write", op="WriteFile", input=["name:output:0", "text:output:0"])
    initializer.control_ret["write"] = "write"  # or the operation would be pruned
    initializer.signature.control_output.append("write")
    path.write_bytes(saved.SerializeToString())
    words = "saved_model.pb was not opened, because it contains the operation WriteFile, which exports of"
    (tmp_path / "in.txt").write_text("a\n")
    for command in (
        ["translate", copy, "--input", tmp_path / "in.txt"],
        ["evaluate", copy, "--source", tmp_path / "in.txt", "--reference", tmp_path / "in.txt"],
    ):
        result = CliRunner().invoke(app, [str(one) for one in command])
        assert words in f"{result.output}{result.exception}" and result.exit_code in (1, 2)
    assert not written.exists()


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("variables", r"is incomplete: there is no file .*variables\.index\. Copy it again\."),
        ("variables/variables.index", r"is incomplete: there is no file .*variables\.index\."),
        ("variables/variables.data-00000-of-00001", r"is incomplete: there is no file .*data-00000-of-00001\."),
        ("assets.extra/source.model", r"There is no file .*source\.model"),
        ("assets.extra", r"is not an export of this toolkit: it has no assets\.extra/export\.json\."),
    ],
)
def test_an_export_that_lacks_files_names_them(copy, lost, words):
    path = copy / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(UserError, match=words):
        open_translator(copy)


def test_a_damaged_export_is_one_message(exported, copy, monkeypatch):
    graph, index = copy / "saved_model.pb", copy / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-60])

    def fail(folder: str) -> None:  # as TensorFlow does after some seconds
        raise tensorflow.errors.DataLossError(None, None, "Unable to open table file\nmore")

    monkeypatch.setattr(tensorflow.saved_model, "load", fail)
    words = r"^The export .* is damaged: DataLossError: Unable to open table file\. Copy it again\.$"
    with pytest.raises(UserError, match=words):
        open_translator(copy)
    shutil.copy(exported.version / "assets.extra" / "export.json", copy / "assets.extra")
    with pytest.raises(UserError, match=r"variables\.index is damaged: its checksum is not the one in export\.json"):
        open_translator(copy)
    for content, words in (
        (b"", "is not an export of this toolkit: expected one graph of TensorFlow 2"),
        (b"\xff" * 50, "is damaged: it is not a SavedModel"),
        (b"\x08\x01\x12\x00", "is not an export of this toolkit: expected one graph of TensorFlow 2"),
    ):
        graph.write_bytes(content)
        with pytest.raises(UserError, match=rf"saved_model\.pb {words}"):
            open_translator(copy)


def make_litert(path: Path, **changes) -> Path:
    """Writes a model of one operation, an addition."""
    model = schema.ModelT(version=3, operatorCodes=[schema.OperatorCodeT()], **changes)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def test_a_litert_model_of_built_in_operations_is_accepted(tmp_path):
    check_litert(make_litert(tmp_path / "x.tflite", buffers=[schema.BufferT(data=[1, 2, 3])]))


def test_operations_from_elsewhere_and_other_files_are_refused(tmp_path):
    code = schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.CUSTOM, customCode="FlexWriteFile")
    path = make_litert(tmp_path / "x.tflite")
    model = schema.ModelT(version=3, operatorCodes=[code])
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    with pytest.raises(UserError, match=r"x\.tflite was not opened, because it contains the operation FlexWriteFile"):
        check_litert(path)
    make_litert(path, externalBufferGroups=[schema.ExternalBufferGroupT(name="/etc/passwd")])
    with pytest.raises(UserError, match=r"x\.tflite was not opened, because it contains weights in another file"):
        check_litert(path)


def test_a_damaged_litert_model_is_named(tmp_path):
    path = make_litert(tmp_path / "x.tflite", buffers=[schema.BufferT(data=list(range(100)))])
    whole = path.read_bytes()
    for content in (b"", b"TFL3", whole[: len(whole) // 2], b"\xff\xff\xff\x7f" + whole[4:], whole[:4] + b"XXXX"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.tflite is damaged: it is not a LiteRT model"):
            check_litert(path)
