import pytest

from nmt.errors import UserError, suggest_name


def test_the_closest_name_is_offered():
    assert suggest_name("bacth_size", ["batch_by", "batch_size", "beam_size"]) == " Did you mean 'batch_size'?"


@pytest.mark.parametrize("valid", [[], ["seed", "model"]])
def test_nothing_is_offered_where_nothing_is_close(valid):
    assert suggest_name("bacth_size", valid) == ""


def test_a_name_without_its_end_is_recognized():
    assert suggest_name("pruning", ["running", "pruning_threshold"]) == " Did you mean 'pruning_threshold'?"


def test_names_may_come_from_any_iterable():
    assert suggest_name("modl", (name for name in ("data", "model"))) == " Did you mean 'model'?"
    assert suggest_name("modl", {"model": 1}) == " Did you mean 'model'?"


def test_a_user_error_is_a_value_error_and_keeps_its_words():
    with pytest.raises(ValueError, match=r"^a.yaml:3: unknown key$"):
        raise UserError("a.yaml:3: unknown key")
