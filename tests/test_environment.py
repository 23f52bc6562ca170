"""pyproject.toml, constraints.txt and environment.yml describe one environment."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
]
#: What the project's owner asked for by name.
ASKED_FOR = (  # noqa: SIM905
    "gradio jupyterlab torch diffusers transformers faster-whisper accelerate duckdb sqlglot "
    "langchain mlflow pytest nbmake"
).split()


def _pins() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[canonicalize_name(name)] = version
    return pins


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_each_requirement_is_pinned_and_installed_as_pinned(requirement: Requirement):
    pin = _pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    assert metadata.version(requirement.name).split("+")[0] == pin


def test_every_pin_is_exact():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wrong = [
        line
        for line in lines
        if line and not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.!]+", line)
    ]
    assert not wrong


def test_conda_gives_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    assert PROJECT["requires-python"].startswith(f">={python.removeprefix('python=')}")
    pip = environment["dependencies"][-1]["pip"]
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]


def test_what_was_asked_for_is_required_and_used():
    required = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    assert set(ASKED_FOR) <= required


@pytest.mark.parametrize("name", sorted({*ASKED_FOR} - {"pytest", "nbmake", "jupyterlab"}))
def test_what_was_asked_for_is_really_used(name: str):
    module = name.replace("-", "_")
    # accelerate has no call of its own: it is what places the weights where `device_map` says
    text = r"device_map=" if name == "accelerate" else rf"^\s*(import|from) {module}\b"
    pattern = re.compile(text, re.MULTILINE)
    sources = [*(ROOT / "workbench").rglob("*.py"), *(ROOT / "apps").rglob("*.py")]
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in sources)


def test_python_is_one_that_the_project_supports():
    assert (3, 11) <= sys.version_info[:2] < (3, 13)
