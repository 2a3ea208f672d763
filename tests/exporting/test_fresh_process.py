import subprocess
import sys

import pytest

from nmt.exporting import fresh_process

LOADED = f"""
import runpy, sys
module = runpy.run_path({fresh_process.__file__!r}, run_name="loaded")
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", LOADED + code], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["nmt", "nmt.errors"])
def test_the_toolkit_cannot_be_imported_once_it_is_blocked(name):
    result = run(f"module['block']('nmt'); print('blocked'); import {name}")
    assert result.stdout == "blocked\n" and "nmt is blocked in this process" in result.stderr


def test_other_modules_can():
    assert run("module['block']('nmt'); import sqlite3; print('fine')").stdout == "fine\n"


def test_a_toolkit_that_is_there_already_ends_the_process():
    result = run("import nmt; module['block']('nmt'); print('never')")
    assert result.returncode == 1 and "nmt could be imported" in result.stderr and not result.stdout
