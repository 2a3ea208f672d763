"""The command line on JAX in a process that cannot import TensorFlow; at the end it says how often what was traced.

python without_tensorflow.py train config.yaml …
"""

import json
import os
import sys
from collections import Counter

TRACED = Counter()


def count(owner, name):
    """Counts the calls of what is called once a compilation, to be traced."""
    function = getattr(owner, name)

    def counted(*args, **kwargs):
        TRACED[name] += 1
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def main():
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    # As if they were not installed: importing one raises, and looking for it finds nothing.
    sys.modules |= {"tensorflow": None, "tensorflow_text": None}
    from nmt.cli.main import main as run_command
    from nmt.training import update_jax, validation
    from nmt.translators import searches

    count(update_jax.JaxUpdate, "_update")
    count(validation.Validator, "_sum_loss")
    count(searches, "search")
    try:
        run_command()
    finally:
        assert not [name for name in sys.modules if name.startswith("tensorflow.")]
        print(json.dumps(TRACED), file=sys.stderr)


if __name__ == "__main__":
    main()
