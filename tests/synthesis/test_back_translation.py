from pathlib import Path

import pytest
import yaml
from synthesis_fakes import Fake, read_pairs, write_lines, write_model

from nmt.config.schema import TrainingFiles
from nmt.errors import UserError
from nmt.synthesis import pairs
from nmt.synthesis.back_translation import back_translate
from nmt.synthesis.noise import BLANK, add_noise


def run(into: str = "out", text: str = "mono.de", **options) -> Path:
    settings = {"workers": 1, "log": lambda line: None, **options}
    return back_translate(Path("export"), [Path(text)], into=Path(into), **settings)


@pytest.mark.usefixtures("use")
def test_the_original_lines_are_the_targets(place):
    write_lines(place / "mono.de", "eins ", "", "zwei", "  ", "nothing", "fünf")
    logged: list[str] = []
    fragment = run(log=logged.append)
    assert read_pairs(place / "out", "back-translated-1") == [("EINS ", "eins "), ("ZWEI", "zwei"), ("FÜNF", "fünf")]
    assert logged[-1] == (
        "out/back-translated-1.source, back-translated-1.target: 3 pairs; lines left out because they or their "
        "translations are blank: 3."
    )
    [entry] = yaml.safe_load(fragment.read_text("utf-8"))["data"]["train"]
    assert entry == {"source": "out/back-translated-1.source", "target": "out/back-translated-1.target"}


@pytest.mark.usefixtures("use")
def test_the_direction_of_the_model_is_printed(place):
    write_lines(place / "mono.de", "eins")
    write_model(place / "model")
    logged: list[str] = []
    back_translate(Path("model"), [Path("mono.de")], into=Path("out"), workers=1, log=logged.append)
    assert logged[0] == "Targets in en get sources in de."


@pytest.mark.usefixtures("use")
def test_the_tag_is_recorded_and_checked_before_the_work(place):
    write_lines(place / "mono.de", "eins")
    [entry] = yaml.safe_load(run(tag="<bt>").read_text("utf-8"))["data"]["train"]
    assert TrainingFiles(**entry).tag == "<bt>"
    assert read_pairs(place / "out", "back-translated-1") == [("EINS", "eins")]
    with pytest.raises(UserError, match=r"^--tag: expected a symbol without spaces .*; found 'b t'\.$"):
        run("other", tag="b t")
    assert not (place / "other").exists()


@pytest.mark.usefixtures("use")
def test_noise_is_a_function_of_seed_and_line(place, monkeypatch):
    lines = [" ".join(f"w{n}x{k}" for k in range(12)) for n in range(7)]
    lines[2] = ""
    write_lines(place / "mono.de", *lines)
    fragment = run(noise_seed=3)
    expected = [(add_noise(line.upper(), 3, n), line) for n, line in enumerate(lines) if line]
    assert read_pairs(place / "out", "back-translated-1") == expected
    assert yaml.safe_load(fragment.read_text("utf-8"))["tokenizer"] == {"user_symbols": [BLANK]}
    monkeypatch.setattr(pairs, "SHARD_LINES", 2)
    run("other-shards", noise_seed=3)
    assert read_pairs(place / "other-shards", "back-translated-1") == expected
    run("other-seed", noise_seed=4)
    assert read_pairs(place / "other-seed", "back-translated-1") != expected
    with pytest.raises(UserError, match="noise: of seed 3 became of seed 4"):
        run(noise_seed=4)


def test_noise_needs_spaces_between_words(place, use):
    write_lines(place / "mono.de", "eins", "zwei", "drei", "vier")
    translator = use(Fake())
    translator.target_language = "ja"
    with pytest.raises(UserError, match=r"^--noise drops and moves words, which 'ja' does not separate by spaces\.$"):
        run(noise_seed=1)
