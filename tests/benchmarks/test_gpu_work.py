"""The batches on which `benchmarks/gpu.py` measures."""

from itertools import product

import numpy as np

from benchmarks.gpu_work import prepare_recipe

CONFIG = """\
run_dir: run
data:
  source_language: en
  target_language: de
  train:
    - {source: a.en, target: a.de, weight: 3, weights: factors}
    - {source: b.en, target: b.de}
  dev: {source: b.en, target: b.de}
tokenizer: {vocabulary_size: 20, byte_fallback: false}
training: {max_updates: 9, batch_by: sentences, batch_size: 4}
"""


def test_batches_of_a_recipe_have_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [" ".join(words) for words in product(("one", "two"), ("six", "ten"), ("dogs", "cats"))]
    for name, side in product("ab", ("en", "de")):
        (tmp_path / f"{name}.{side}").write_text("".join(f"{name} {line}\n" for line in lines))
    (tmp_path / "factors").write_text("2.5\n" * len(lines))
    (tmp_path / "x.yaml").write_text(CONFIG)
    weights = np.concatenate([batch.weights for batch in prepare_recipe(tmp_path / "x.yaml").batches])
    # The pairs of the first text are read three times per epoch and have 2.5 times the weight of the others.
    assert sorted(weights.tolist()) == [1.0] * len(lines) + [2.5] * (3 * len(lines))
