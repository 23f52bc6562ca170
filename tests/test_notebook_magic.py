"""``%%memory`` in a real IPython shell: what a cell took, and what a failed one gives back."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

import workbench as wb
from workbench.memory.devices import process_bytes
from workbench.units import parse_bytes

MIB = 2**20
FAILING = """%%memory
import numpy as np
def work():
    held = np.ones(200 * 2**20, dtype=np.uint8)
    raise ValueError("the reason")
work()
"""


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    hooks = sys.displayhook, sys.excepthook
    shell = InteractiveShell.instance(history_length=0)
    shell.run_line_magic("load_ext", "workbench")
    yield shell
    sys.displayhook, sys.excepthook = hooks
    InteractiveShell.clear_instance()


def reported(text: str, name: str) -> int:
    """Bytes of a value in the printed line."""
    found = re.search(rf"{name} \(?\+?([\d.]+ \w+)", text)
    assert found is not None, text
    return parse_bytes(found[1])


def test_a_cell_says_start_peak_and_end(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    lines = ["%%memory", "import numpy as np", "np.ones(200 * 2**20, dtype=np.uint8).sum()"]
    result = shell.run_cell("\n".join([*lines, "left = 3", "left + 1"]))
    text = capsys.readouterr().out
    assert result.success and result.result == 4
    assert shell.user_ns["left"] == 3
    grown = reported(text, "peak") - reported(text, "start")
    assert grown == pytest.approx(200 * MIB, rel=0.15)
    assert reported(text, "end") < reported(text, "peak") - 150 * MIB


def test_a_failed_cell_gives_its_locals_back(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    gc.collect()
    before = process_bytes()
    result = shell.run_cell(FAILING)
    text = capsys.readouterr().out
    assert isinstance(result.error_in_exec, ValueError)
    assert "the reason" in text and "raise" in text  # the traceback is shown as ever
    released = re.search(r"([\d.]+ \w+) of it by letting go what ValueError held", text)
    assert released is not None and parse_bytes(released[1]) >= 180 * MIB
    assert process_bytes() - before < 60 * MIB


def test_without_the_magic_the_same_cell_holds_them(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    """Else the test above would show nothing; the next watched block lets them go."""
    before = process_bytes()
    shell.run_cell(FAILING.removeprefix("%%memory\n"))
    held = process_bytes() - before
    assert held >= 180 * MIB
    shell.run_cell("%%memory\n1 / 0")
    assert process_bytes() - before < held - 150 * MIB
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_a_semicolon_hides_the_value(shell: InteractiveShell):
    assert shell.run_cell("%%memory\n41 + 1;").result is None


def test_a_syntax_error_is_shown_as_one(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    result = shell.run_cell("%%memory\nthis is no python")
    assert isinstance(result.error_in_exec, SyntaxError)
    assert "memory: start" in capsys.readouterr().out


def test_the_context_manager_knows_the_numbers(capsys: pytest.CaptureFixture[str]):
    with wb.watch_memory() as memory:
        memory.mark("large")
        np.ones(200 * MIB, dtype=np.uint8).sum()
        memory.mark("small")
    assert memory.peak_bytes - memory.start_bytes == pytest.approx(200 * MIB, rel=0.1)
    assert memory.phases["large"] - memory.phases["small"] >= 150 * MIB
    assert memory.to_dict()["peak_bytes"] == memory.peak_bytes
    assert capsys.readouterr().out.startswith("memory: start ")


def test_an_error_goes_on_and_lets_go_of_its_causes(capsys: pytest.CaptureFixture[str]):
    def inner() -> None:
        held = np.ones(200 * MIB, dtype=np.uint8)
        raise KeyError(held.size)

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise RuntimeError("above") from error

    with pytest.raises(RuntimeError, match="above"):
        with wb.watch_memory(show=False) as memory:
            outer()
    assert memory.error == "RuntimeError"
    assert memory.released_bytes >= 180 * MIB
    assert memory.end_bytes < memory.peak_bytes - 150 * MIB
    assert capsys.readouterr().out == ""
