"""Fixtures that write corpus files and make configurations for them."""

from pathlib import Path

import pytest

from nmt.config.schema import Config, CorpusFiles, DataConfig


@pytest.fixture
def write(tmp_path):
    """Writes pairs as NAME.en and NAME.de."""

    def written(name, pairs):
        files = CorpusFiles(source=tmp_path / f"{name}.en", target=tmp_path / f"{name}.de")
        for path, side in zip((files.source, files.target), zip(*pairs, strict=True), strict=True):
            path.write_bytes("".join(f"{line}\n" for line in side).encode())
        return files

    return written


@pytest.fixture
def make_config(tmp_path: Path):
    """Makes the configuration of a tiny model for corpus files."""

    def made(train, dev, **tokenizer):
        return Config(
            run_dir=tmp_path / "run",
            data=DataConfig(source_language="en", target_language="de", train=[train], dev=dev),
            tokenizer={"vocabulary_size": 310, **tokenizer},
            model={"embedding_units": 16, "encoder_units": 16, "decoder_units": 16, "attention_heads": 2},
            training={"batch_size": 8, "max_updates": 1},
        )

    return made
