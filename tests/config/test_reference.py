from pathlib import Path

import pytest

from nmt.config.reference import REGENERATE, explain, get_keys, make_reference_page
from nmt.config.schema import Config
from nmt.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def schema_fields():
    """Yields (dotted name, field) of the top and of each section, without what is in lists."""
    for name, field in Config.model_fields.items():
        yield name, field
        for inner, inner_field in getattr(field.annotation, "model_fields", {}).items():
            yield f"{name}.{inner}", inner_field


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == make_reference_page(), f"The schema has changed; run: {REGENERATE}"


@pytest.mark.parametrize(("name", "field"), list(schema_fields()))
def test_every_key_has_its_own_meaning_and_default(name, field):
    meaning = field.description or field.annotation.__doc__
    assert get_keys()[name].meaning == " ".join(meaning.split())
    assert (get_keys()[name].default == "required") == field.is_required()


def test_the_page_has_a_full_row_for_every_key():
    rows = [line.split(" | ") for line in make_reference_page().splitlines() if line.startswith("| `")]
    top_sections = {name for name, field in Config.model_fields.items() if hasattr(field.annotation, "model_fields")}
    assert {row[0].strip("| `") for row in rows} == set(get_keys()) - top_sections
    assert {len(row) for row in rows} == {4}


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("training.batch_size", "a whole number of 1 or more", "64"),
        ("training.learning_rate", "a number above 0", "0.001"),
        ("training.label_smoothing", "a number of 0 or more and below 1", "0.1"),
        ("training.max_minutes", "null or a number above 0", "null"),
        ("tokenizer.vocabulary_size", "a whole number from 16 to 1000000", "8000"),
        ("training.best_by", "one of bleu, chrf, loss", "bleu"),
        ("training.tensorboard", "true or false", "true"),
        ("data.train", "a list of 1 or more entries, each a section", "required"),
        ("data.train.N.source", "a path", "required"),
        ("training.devices.N", "text", ""),
        ("model", "a section", ""),
    ],
)
def test_types_ranges_and_defaults_are_in_plain_words(name, kind, default):
    assert (get_keys()[name].kind, get_keys()[name].default) == (kind, default)


def test_one_key_is_explained():
    assert explain("training.batch_size") == (
        "training.batch_size: a whole number of 1 or more; default 64\n"
        "    Size of a batch over all devices, in the unit of batch_by.\n"
    )
    assert explain("data.train.0.source") == (
        "data.train.N.source: a path; required\n    File of source sentences, one per line.\n"
    )


def names_in(text):
    return [line.partition(":")[0] for line in text.splitlines() if line and not line.startswith(" ")]


def test_a_section_is_explained_with_its_keys_alone():
    inside = [f"decoding.{key}" for key in Config.model_fields["decoding"].annotation.model_fields]
    assert names_in(explain("decoding")) == ["decoding", *inside]


def test_without_a_name_everything_is_explained():
    assert names_in(explain()) == list(get_keys())


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ("training.bacth_size", " Did you mean 'batch_size'?"),
        ("batch_size", " Did you mean 'training.batch_size'?"),
        ("bacth_size", " Did you mean 'training.batch_size'?"),
        ("training.beam_size", " Did you mean 'decoding.beam_size'?"),
        ("trainin", " Did you mean 'training'?"),
        ("qqq", ""),
        ("", ""),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(unknown, hint):
    with pytest.raises(UserError) as caught:
        explain(unknown)
    assert str(caught.value) == f"There is no configuration key '{unknown}'.{hint}"


def test_one_key_or_section_is_explained_as_a_table():
    header, rule, row = explain("decoding.beam_size", markdown=True).splitlines()
    assert row in make_reference_page()
    section = explain("decoding", markdown=True).splitlines()
    assert [header, rule, row] == [*section[:2], next(line for line in section if "decoding.beam_size" in line)]
    assert len(section) == 3 + len([key for key in get_keys() if key.startswith("decoding.")])
    assert explain(markdown=True) == make_reference_page()
