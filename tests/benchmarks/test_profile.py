import numpy as np

from benchmarks.profile import WARM_UP, profile, time_updates

CONFIG = """
data:
  source_language: en
  target_language: en
  train: [{source: train.en, target: train.rev}]
  dev: {source: train.en, target: train.rev}
tokenizer: {vocabulary_size: 20, byte_fallback: false}
model: {embedding_units: 16, encoder_units: 16, decoder_units: 16, decoder_layers: 1, attention_heads: 2}
training: {batch_size: 16, max_updates: 1, tensorboard: false}
"""


def test_updates_of_the_warm_up_are_not_timed():
    steps = iter([1000.0] * WARM_UP + [1.0, 2.0, 4.0, 8.0])
    seconds, tokens = time_updates(steps, 3)
    assert tokens == 7 and 0 <= seconds < 1
    assert next(steps) == 8


def test_a_profile_shows_speed_and_operations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    lines = [list(random.choice(["one", "two", "three", "four", "five", "six"], size=4)) for _ in range(40)]
    (tmp_path / "train.en").write_text("".join(f"{' '.join(line)}\n" for line in lines))
    (tmp_path / "train.rev").write_text("".join(f"{' '.join(line[::-1])}\n" for line in lines))
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    found = profile(config, ["training.batch_size=8"], updates=2, profiled=3)
    # Every batch has 8 rows of 4 words and EOS.
    assert found.tokens_per_second * found.milliseconds / 1000 >= 8 * 5
    products = [one for one in found.operations if one.name.endswith("MatMul")]
    assert products
    assert all(one.milliseconds > 0 for one in products)
    assert [one.milliseconds for one in found.operations] == sorted(
        (one.milliseconds for one in found.operations), reverse=True
    )
    assert {path.name for path in tmp_path.iterdir()} == {"train.en", "train.rev", "config.yaml"}
