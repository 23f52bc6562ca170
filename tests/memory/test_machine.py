"""Reference and measured values, and values that have aged."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import SettingsError
from workbench.memory import machine as module
from workbench.memory.machine import Machine, get_machine, library_versions, machine_file


def write(machine: Machine) -> None:
    machine_file().write_text(machine.model_dump_json(), encoding="utf-8")


def measured(**values: object) -> Machine:
    found = Machine(name="a box", is_measured=True, measured_on="2026-11-23")
    return found.model_copy(update={"versions": library_versions(), **values})


def test_without_a_file_the_reference_values_hold(home: Path):
    found = get_machine()
    assert not found.is_measured
    assert "--calibrate" in found.name
    assert set(found.context_bytes) == {"llama_cpp", "ctranslate2", "transformers", "diffusers"}


def test_measured_values_come_back(home: Path):
    write(measured(flops={"cpu/float32": 5e10}))
    assert get_machine() == measured(flops={"cpu/float32": 5e10})


def test_a_changed_library_is_said(home: Path, monkeypatch: pytest.MonkeyPatch):
    write(measured())
    versions = {**library_versions(), "torch": "9.9"}
    monkeypatch.setattr(module, "library_versions", lambda: versions)
    module._read.cache_clear()
    found = get_machine()
    assert found.is_measured
    assert found.name == "a box; torch changed since: `workbench doctor --calibrate`"
    module._read.cache_clear()


def test_a_new_calibration_is_seen_at_once(home: Path):
    write(measured())
    assert get_machine().name == "a box"
    write(measured(name="another box"))
    assert get_machine().name == "another box"


@pytest.mark.parametrize("text", ["", "[]", '{"unknown": 1}', '{"flops": "fast"}', "\ud800"])
def test_a_broken_file_is_named(home: Path, text: str):
    machine_file().write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SettingsError, match="--calibrate"):
        get_machine()


def test_versions_are_those_that_are_installed():
    found = library_versions()
    assert found["numpy"].count(".") >= 1
    assert set(found) <= set(module.LIBRARIES)
