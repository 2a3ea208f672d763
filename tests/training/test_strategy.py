import pytest
import tensorflow as tf

from nmt.errors import UserError
from nmt.training.strategy import make_strategy
from nmt.training.workers import check_devices

KNOWN = ["CPU:0", "GPU:0", "GPU:1"]


@pytest.mark.parametrize("kind", ["auto", "single"])
@pytest.mark.parametrize("devices", [None, ["CPU:0"], ["/device:CPU:0"]])
def test_the_first_device_needs_no_strategy(kind, devices):
    assert make_strategy(kind, devices) is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("kind", "devices", "words"),
    [
        ("auto", ["GPU:7"], r"expected devices of CPU:0, GPU:0, GPU:1, found GPU:7\. Did you mean 'GPU:"),
        ("single", ["GPU:0", "GPU:1"], r"strategy single trains on one device, but training\.devices has 2\."),
        ("mirrored", ["GPU:1", "/device:GPU:1"], r"expected one or more different devices, found \['GPU:1', '/dev"),
        ("mirrored", [], r"expected one or more different devices, found \[\]"),
        ("multi_worker", ["GPU:0"], r"training\.devices has no effect with training\.strategy multi_worker"),
    ],
)
def test_devices_that_a_strategy_cannot_use_are_refused(kind, devices, words):
    with pytest.raises(UserError, match=words):
        check_devices(kind, devices, KNOWN)


def test_devices_are_refused_before_workers_wait_for_each_other(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match=r"has no effect with training\.strategy multi_worker"):
        make_strategy("multi_worker", ["CPU:0"])
