"""N replicas with any number of micro-batches learn what one learns; two logical devices stand for N."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("replicas_script.py")


@pytest.fixture(scope="module")
def found():
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["sgd float64", "adamw float64"])
def test_replicas_and_micro_batches_learn_what_one_learns(found, case):
    one, several = (np.array(found["courses"][f"{case} {place}"]) for place in ("1x1", "2x3"))
    assert one.shape == several.shape == (20, 3 + 12)
    np.testing.assert_allclose(several, one, rtol=1e-9)


def test_a_single_device_that_was_chosen_is_used(found):
    assert found["single"] == {"places": ["CPU:1"], "learns": True}


def test_the_courses_are_worth_comparing(found):
    for name, course in found["courses"].items():
        losses, norms, num_tokens, *pairs = np.array(course).T
        assert losses[-5:].mean() < losses[:5].mean(), name
        assert len(set(num_tokens)) == 1
        # Five rows of 9 tokens and five of 2, each with its EOS: a replica's own mean would weigh them otherwise.
        assert num_tokens[0] == 5 * 10 + 5 * 3
        assert min(map(min, pairs[:10])) > 0 and not np.any(pairs[10:])
        if name.startswith("adamw"):
            assert norms.min() > 0.05, f"{name} is not always clipped"


def test_every_replica_drops_values_of_its_own(found):
    one, two = found["equal_rows"]
    # Were the masks of both the same, so would be the mean over both rows and over the first replica's.
    assert abs(one - two) > 1e-4
