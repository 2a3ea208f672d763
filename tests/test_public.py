"""What `import nmt` offers."""

import importlib
import subprocess
import sys

import pytest

import nmt


def test_every_public_name_is_there_and_says_what_it_is():
    assert nmt.__all__ == sorted(nmt.__all__)
    for name in nmt.__all__:
        assert getattr(nmt, name).__doc__, name


def test_names_are_those_of_the_modules_that_define_them():
    for name in nmt.__all__:
        assert getattr(nmt, name) is getattr(importlib.import_module(getattr(nmt, name).__module__), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'nmt' has no attribute 'Tranlator'"):
        nmt.Tranlator  # noqa: B018


def test_importing_costs_no_framework():
    code = "import nmt, sys; print(sorted({'tensorflow', 'keras', 'jax', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
