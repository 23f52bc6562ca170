"""What the documents say is run, and what they point to exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: They set up the environment or go on until somebody stops them; other tests start them.
NOT_HERE = {"make app", "make test", "workbench app", "workbench mlflow", "workbench lab"}


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


COMMANDS = sorted(
    {
        line.removeprefix("$ ").split(" #")[0].strip()
        for path in DOCUMENTS
        for block in blocks(path, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    }
    - NOT_HERE
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the checkout, so that results do not fall into the real one."""
    for name in ("data", "experiments", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    """What the command prints, run in ``folder`` with this environment's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.models
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs(command: str, checkout: Path):
    assert run(shlex.split(command), checkout).strip()


@pytest.mark.models
def test_the_python_of_the_readme_runs(checkout: Path):
    (code,) = blocks(ROOT / "README.md", "python")
    assert "-->" in run([sys.executable, "-c", code], checkout)
    assert (checkout / "circle.png").is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_inside_the_project_leads_somewhere(path: Path):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        nested = getattr(field.annotation, "model_fields", None)
        for child in nested or [None]:
            variable = f"WORKBENCH_{name}__{child}" if child else f"WORKBENCH_{name}"
            assert f"`{variable.upper()}`" in text


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("app", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
