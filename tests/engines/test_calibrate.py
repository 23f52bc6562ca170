"""Calibration: real parts in real processes, and what happens when one of them fails."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from workbench.engines import calibrate as module
from workbench.engines.calibrate import calibrate
from workbench.errors import SettingsError
from workbench.memory.machine import Machine, get_machine, machine_file

MIB = 2**20


def answer(figures: dict[str, dict[str, float]]):
    """Stands in for `_part`: figures by the part's arguments."""

    def part(arguments: list[str], report: module.Report) -> dict[str, float]:
        return dict(figures.get(" ".join(arguments), {}))

    return part


def test_parts_are_put_together_and_kept(home: Path, monkeypatch: pytest.MonkeyPatch):
    figures = {
        "context ctranslate2": {"bytes": 77.0 * MIB},
        "copy": {"cpu": 9e9},
        "multiply cpu": {"cpu/float32": 3e10, "cpu/bfloat16": 4e10},
    }
    monkeypatch.setattr(module, "_part", answer(figures))
    lines: list[str] = []
    found = calibrate(lines.append)
    reference = Machine()
    assert found.context_bytes["ctranslate2"] == 77 * MIB
    assert found.bytes_per_second["cpu"] == 9e9
    assert found.flops["cpu/bfloat16"] == 4e10
    # what could not be measured keeps its reference value
    assert found.context_bytes["diffusers"] == reference.context_bytes["diffusers"]
    assert found.bytes_per_second["disk"] == reference.bytes_per_second["disk"]
    assert found.is_measured and found.measured_on and found.measured_on in found.name
    assert get_machine() == found
    assert any("77.00 MiB" in line for line in lines)
    assert sorted(path.name for path in home.iterdir()) == ["catalog", "machine.json"]


def test_a_part_that_fails_says_why(monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    assert module._part(["context", "no-such-engine"], lines.append) == {}
    assert "no engine" in lines[0]
    monkeypatch.setattr(module, "_PART_SECONDS", 0.001)
    assert module._part(["copy"], lines.append) == {}
    assert "more than" in lines[1]


def test_a_folder_that_cannot_be_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_part", answer({}))
    machine_file().mkdir()  # in the way of the rename, also for root
    with pytest.raises(SettingsError, match="cannot be written"):
        calibrate()
    assert not list(home.glob("*.new"))


def test_the_small_parts_really_run(home: Path):
    lines: list[str] = []
    assert module._part(["copy"], lines.append)["cpu"] > 1e8
    assert module._part(["disk"], lines.append)["disk"] > 1e6
    assert lines == []
    assert [path.name for path in home.iterdir()] == ["catalog"]  # its file is gone again
    context = module._part(["context", "ctranslate2"], lines.append)["bytes"]
    assert 30 * MIB < context < 400 * MIB


def test_the_largest_model_is_read(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_READ_BYTES", 4 * MIB)
    model = home / "models" / "m" / "model.bin"
    model.parent.mkdir(parents=True)
    model.write_bytes(bytes(3 * MIB))
    before = model.stat()
    assert module._disk()["disk"] > 0
    assert model.stat().st_mtime_ns == before.st_mtime_ns
    assert stat.S_ISREG(before.st_mode)


def test_the_command(home: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from workbench.cli import main

    monkeypatch.setattr(module, "_part", answer({"copy": {"cpu": 9e9}}))
    monkeypatch.setattr(sys, "argv", ["workbench", "doctor", "--calibrate", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0)
    out, err = capsys.readouterr()
    assert json.loads(out)["bytes_per_second"]["cpu"] == 9e9
    assert "cpu: " in err
    monkeypatch.setattr(sys, "argv", ["workbench", "doctor"])
    with pytest.raises(SystemExit):
        main()
    assert f"calibrated              {get_machine().name}" in capsys.readouterr().out
