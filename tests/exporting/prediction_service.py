"""A gRPC server on an export, for clients of TensorFlow Serving."""

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Implements Predict with the signatures of one SavedModel."""

    def __init__(self, signatures: Mapping[str, Callable], name: str):
        self._signatures, self._name = signatures, name

    def Predict(self, request: Any, context: grpc.ServicerContext) -> predict_pb2.PredictResponse:  # noqa: N802
        if request.model_spec.name != self._name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        answer = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for key, value in self._signatures[request.model_spec.signature_name](**inputs).items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return answer


@contextmanager
def serving(signatures: Mapping[str, Callable], name: str) -> Iterator[str]:
    """Serves a model and yields the address."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(signatures, name), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
