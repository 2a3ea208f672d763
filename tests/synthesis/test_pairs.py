"""What commands that are refused leave in the folder of the pairs."""

from pathlib import Path

import pytest
from synthesis_fakes import Fake, read_pairs, write_lines

from nmt.cluster import shards
from nmt.config.file import load_config
from nmt.data.corpus import TextFile
from nmt.errors import InterruptionError, UserError
from nmt.synthesis.back_translation import back_translate
from nmt.synthesis.distillation import distill

COMMON = {"into": Path("out"), "workers": 1, "log": lambda line: None}


def run_distill(**options):
    return distill(Path("export"), config=load_config("base.yaml"), **COMMON, **options)


def run_back_translate(**options):
    return back_translate(Path("export"), [Path("mono")], **COMMON, **options)


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_noise_that_cannot_be_added_does_not_bind_the_folder(place, use):
    write_lines(place / "mono", "eins", "zwei", "drei", "vier")
    use(Fake()).target_language = "ja"
    with pytest.raises(UserError, match="--noise drops and moves words"):
        run_back_translate(noise_seed=1)
    assert not (place / "out").exists()
    run_back_translate()
    assert read_pairs(place / "out", "back-translated-1")[0] == ("EINS", "eins")


def test_a_beam_that_is_too_small_does_not_bind_the_folder(place, use):
    translator = use(Fake())
    translator.max_n_best = 1
    with pytest.raises(UserError, match="expected a beam size of 2 or more"):
        run_distill(nearest="bleu", settings={"beam_size": 1})
    translator.max_n_best = 5
    run_distill(nearest="bleu", settings={"beam_size": 5})
    assert read_pairs(place / "out", "distilled-2") == [("a b c d", "A B C D")]


@pytest.mark.parametrize("interrupt_at", ["", "three"])
def test_a_refused_command_leaves_the_pairs_and_the_finished_shards(place, use, interrupt_at):
    use(Fake(interrupt_at))
    if interrupt_at:
        with pytest.raises(InterruptionError, match="1 of 4 shards"):
            run_distill()
    else:
        run_distill()
    before = list_files(place / "out")
    with pytest.raises(UserError, match="nearest: none became chrf"):
        run_distill(nearest="chrf")
    after = list_files(place / "out")
    assert {name: after.get(name) for name in before} == before
    # The references are indexed beside the shards of the interrupted command, which removes them in the end.
    assert interrupt_at or after == before


def test_a_command_that_was_killed_before_its_first_shard_may_be_corrected(place, use, monkeypatch):
    use(Fake("one"))
    with monkeypatch.context() as patch, pytest.raises(InterruptionError, match="0 of 4 shards"):
        patch.setattr(shards, "discard", lambda path: None)  # a process that is killed removes nothing
        run_distill()
    assert (place / "out" / ".translation.json").exists()
    use(Fake())
    run_distill(settings={"beam_size": 2})
    assert read_pairs(place / "out", "distilled-2") == [("a b c d", "A B C D")]


@pytest.mark.usefixtures("use")
def test_a_text_is_opened_once_for_all_its_shards(place, monkeypatch):
    opened = []
    open_text = TextFile.open
    monkeypatch.setattr(TextFile, "open", lambda path, cache: opened.append(path.name) or open_text(path, cache))
    run_distill()
    assert opened == ["a.en", "b.en"]


@pytest.mark.usefixtures("use")
def test_a_folder_of_others_stays_as_it_is(place):
    (place / "out").mkdir()
    write_lines(place / "out/data.yaml", "mine")
    with pytest.raises(UserError, match="was not made by this command"):
        run_distill()
    assert list_files(place / "out") == {"data.yaml": b"mine\n", ".lock": list_files(place / "out")[".lock"]}
