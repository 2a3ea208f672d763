"""Checks whether the stock server can run a graph."""

import json

import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from nmt.errors import OperationError, UserError
from nmt.exporting import stock_server
from nmt.exporting.stock_server import check_operations, choose_server_version


def graph_of(function, *arguments) -> GraphDef:
    return tf.function(function, autograph=False).get_concrete_function(*arguments).graph.as_graph_def()


def node(kind: str) -> GraphDef:
    graph = GraphDef()
    graph.node.add(name="one", op=kind)
    return graph


def test_the_record_names_every_kind_of_operation(exported):
    record = json.loads((exported.version / "assets.extra" / "export.json").read_text())["operations"]
    assert record["number"] == len(record["names"]) == len(set(record["names"]))
    assert {"SentencepieceOp", "SentencepieceTokenizeOp", "MatMul", "While", "VarHandleOp"} <= set(record["names"])


def test_operations_in_functions_count():
    inner = tf.function(lambda x: tf.nn.relu(x) + 1)
    found = check_operations(graph_of(lambda x: tf.cond(x > 0, lambda: inner(x), lambda: tf.exp(x)), tf.constant(1.0)))
    assert {"Relu", "Exp", "AddV2"} <= set(found)
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("CudnnRNNV3", "does not run on a CPU"),
        ("XlaLaunch", "needs XLA"),
        ("PyFunc", "calls Python"),
        ("EagerPyFunc", "calls Python"),
        ("OurFastBeam", "is neither in TensorFlow nor in tensorflow-text"),
    ],
)
def test_operations_that_the_stock_server_lacks_are_named(kind, why):
    with pytest.raises(OperationError) as caught:
        check_operations(node(kind))
    assert str(caught.value) == (f"The stock server cannot run the graph, so nothing was written: {kind} ({why}).")


def test_python_and_xla_are_found_inside_functions():
    with pytest.raises(OperationError, match=r"EagerPyFunc \(calls Python\)"):
        check_operations(graph_of(lambda x: tf.py_function(lambda y: y, [x], tf.float32), tf.constant(1.0)))
    compiled = tf.function(lambda x: x + 1, jit_compile=True, autograph=False)
    with pytest.raises(OperationError, match=r"must be compiled by XLA"):
        check_operations(graph_of(lambda x: compiled(x), tf.constant(1.0)))


@pytest.mark.parametrize(
    ("wanted", "found"), [(None, "2.21.0"), ("2.21.0", "2.21.0"), ("2.21.7", "2.21.7"), ("3.0.0", "3.0.0")]
)
def test_a_server_of_tensorflows_minor_version_or_newer_is_taken(monkeypatch, wanted, found):
    monkeypatch.setattr(stock_server, "installed_version", lambda package: "2.21.1")
    said = []
    assert choose_server_version(wanted, said.append) == found
    assert [line for line in said if "newer than TensorFlow 2.21.1" in line] == said
    assert bool(said) == (wanted == "3.0.0")


@pytest.mark.parametrize("wanted", ["2.20.9", "2.9.0", "1.99.0"])
def test_an_older_server_is_refused(monkeypatch, wanted):
    monkeypatch.setattr(stock_server, "installed_version", lambda package: "2.21.0")
    with pytest.raises(UserError) as caught:
        choose_server_version(wanted)
    older = ".".join(wanted.split(".")[:2])
    assert str(caught.value) == (
        f"export.server_version is {wanted}, but TensorFlow 2.21.0 writes the graph, and a server reads only graphs of "
        f"its own version and of older ones. Set 2.21.0 or newer, or export with TensorFlow {older}."
    )
