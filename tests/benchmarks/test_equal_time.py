from itertools import permutations

from benchmarks.corpus import join_tokens, write_lines
from benchmarks.equal_time import write_text
from nmt.config.file import config_from_text
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer

CONFIG = """\
run_dir: x
data:
  source_language: en
  target_language: de
  train: [{source: train.en, target: train.de}]
  dev: {source: dev.en, target: dev.de}
tokenizer: {vocabulary_size: 280}
training: {max_updates: 9}
"""


def test_pairs_stay_together_in_another_order_and_blank_ones_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = [" ".join(words) for words in permutations(("one", "two", "six", "ten"))]
    targets = [" ".join(words) for words in permutations(("eins", "zwei", "sechs", "zehn"))]
    write_lines(tmp_path / "train.en", ["alone", *sources])
    write_lines(tmp_path / "train.de", [" ", *targets])
    write_lines(tmp_path / "dev.en", sources[:3])
    write_lines(tmp_path / "dev.de", targets[:3])
    into = tmp_path / "into"
    assert write_text(config_from_text(CONFIG, "x.yaml"), into) == len(sources)
    tokenizer = Tokenizer.load(into / "tokenizer.model")
    read = {name: join_tokens(tokenizer, read_lines(into / name)) for name in ("train.en", "train.de", "dev.de")}
    assert sorted(zip(read["train.en"], read["train.de"], strict=True)) == sorted(zip(sources, targets, strict=True))
    assert read["train.en"] != sources
    assert read["dev.de"] == targets[:3]
    assert len(read_lines(into / "vocabulary.txt")) == tokenizer.vocabulary_size - 4
