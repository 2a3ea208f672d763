"""Runs the cases on JAX, on one and on two devices, from weights in a file, and writes what came of them.

    python jax_script.py STARTS.npz FOUND.npz

A program of its own, since Keras has its backend, and JAX its devices, from the start of a process.
"""

import os
import sys

import numpy as np
from backend_cases import DESCENT, DROPOUT, OTHER, V, differentiate_consistency, learned, make_model, settings_of


def run(name, case, starts, kind, **changes):
    from nmt.training.update_jax import JaxUpdate, make_mesh

    prefix = f"{name}/"
    weights = {path.removeprefix(prefix): array for path, array in starts.items() if path.startswith(prefix)}
    model = make_model(case, weights)
    update = JaxUpdate(model, model.optimizer, make_mesh(kind), **{**settings_of(case), **changes})
    update.precompile([(12, 10, 10)])
    return {**learned(update, case), "rows_multiple": update.rows_multiple}


def drop_words():
    """The memory of a sentence that is padded, and what both directions make of the vectors that the bridge carries."""
    import jax
    import keras

    from nmt.models.embedding import Embedding
    from nmt.models.encoder import Encoder

    keras.utils.set_random_seed(1)
    words = Embedding(V, 5, scale=1.0, dropout=0.0, word_dropout=0.5)
    encoder = Encoder(words, num_layers=1, units=6, bridge=True, dropout=0.0, layer_norm=False)
    ids = np.array([[4, 5, 6, 7, 8, 9, 10, 11, 3, 0, 0]])

    @jax.jit  # since JAX would compile every single operation otherwise
    def read():
        with keras.StatelessScope():
            memory = encoder(ids, training=True).memory[:, :9]
            vectors = memory[..., 6:]
            backward = encoder.backward(vectors[:, ::-1])[:, ::-1]
            return {"memory": memory, "forward": encoder.forward(vectors), "backward": backward}

    return {name: np.array(x[0]) for name, x in read().items()}


def main():
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    starts = dict(np.load(sys.argv[1]))
    found = {name: run(name, case, starts, "single") for name, case in (("descent", DESCENT), ("other", OTHER))}
    # Compiling takes most of the time, so there is one course per fact.
    for kind, devices, micro in (("single", 1, 1), ("single", 1, 3), ("auto", 2, 3)):
        found[f"dropout {devices}x{micro}"] = run("dropout", DROPOUT, starts, kind, accumulation_steps=micro)
    found["words"] = drop_words()
    found["consistency"] = {kind: differentiate_consistency(kind) for kind in ("r_drop", "simcut")}

    from nmt import compilation

    # What a GPU runs: both directions of the encoder at once, four positions a turn of the loop.
    compilation.has_gpu = lambda: True
    found["gpu 2x1"] = run("dropout", DROPOUT, starts, "auto")
    np.savez(sys.argv[2], **{f"{name}/{key}": x for name, values in found.items() for key, x in values.items()})


if __name__ == "__main__":
    main()
