"""Warm-up requests, which TensorFlow Serving runs before it uses a version, so that no user waits for slow first calls.

They are a TFRecord file of tensorflow.serving.PredictionLog. Its few messages are encoded here field by field, because
the package with their classes, tensorflow-serving-api, is released months after the TensorFlow that it belongs to.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nmt.translators.savedmodel import import_tensorflow

WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
MAX_TEXTS = 16  # in the largest request


def make_warmup_requests(sentences: Sequence[str]) -> list[list[str]]:
    """Returns requests: the shortest, the median and the longest sentence alone, then sentences of all lengths."""
    ordered = sorted({text for text in sentences if text.strip()} or {""}, key=lambda text: (len(text), text))
    return [*([text] for text in _pick_evenly(ordered, 3)), _pick_evenly(ordered, MAX_TEXTS)]


def write_warmup(path: Path, model: str, signatures: Sequence[str], requests: Sequence[Sequence[str]]) -> None:
    """Writes each request for each signature.

    Args:
        path: a file that does not exist yet.
        model: name of the model, which the server ignores in warm-up requests.
        signatures: names of signatures whose only input is `text`.
        requests: texts of each request.
    """
    tensorflow = import_tensorflow()
    with tensorflow.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            for texts in requests:
                writer.write(make_prediction_log(model, signature, {"text": texts}))


def make_prediction_log(model: str, signature: str, inputs: Mapping[str, Sequence[str]]) -> bytes:
    """Returns the bytes of a PredictionLog with one PredictRequest, whose inputs are string [N]."""
    tensorflow = import_tensorflow()
    spec = _field(1, model.encode()) + _field(3, signature.encode())  # ModelSpec: name, signature_name
    request = _field(1, spec)  # PredictRequest: model_spec, and a map of inputs
    for name, texts in inputs.items():
        tensor = tensorflow.make_tensor_proto(list(texts), tensorflow.string).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))  # PredictionLog: predict_log; PredictLog: request


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field of a protocol buffer that contains text or a message: tag, length, content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Encodes a number with seven bits per byte, lowest first; the highest bit means that another byte follows."""
    rest = value >> 7
    return bytes([value & 0x7F | 0x80]) + _varint(rest) if rest else bytes([value])


def _pick_evenly(ordered: Sequence[str], count: int) -> list[str]:
    """Returns at most `count` texts at even distances, the first and the last included."""
    last = len(ordered) - 1
    return [ordered[n] for n in sorted({round(last * k / (count - 1)) for k in range(count)})]
