import pytest

from nmt.errors import UserError

jax = pytest.importorskip("jax")

from nmt.training.update_jax import make_mesh, use_device  # noqa: E402, it needs JAX


@pytest.mark.parametrize("kind", ["auto", "mirrored", "single"])
def test_the_only_device_is_the_mesh(kind):
    assert make_mesh(kind).size == 1
    assert make_mesh(kind, ["CPU:0"]).devices.tolist() == jax.devices("cpu")[:1]


def test_one_process_trains():
    with pytest.raises(UserError, match=r"training.strategy multi_worker requires the TensorFlow backend"):
        make_mesh("multi_worker")


def test_computation_outside_the_mesh_uses_its_first_device():
    with use_device(make_mesh("auto", ["CPU:0"])):
        assert jax.numpy.zeros(()).devices() == {jax.devices()[0]}


def test_an_unknown_device_is_named():
    with pytest.raises(UserError, match=r"expected devices of CPU:0, found CPU:7\. Did you mean 'CPU:0'\?"):
        make_mesh("auto", ["CPU:7"])
