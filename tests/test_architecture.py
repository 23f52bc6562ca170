"""The house rules of docs/architecture.md, checked."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import workbench

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "diffusers", "mlflow", "gradio", "pandas")
RUNTIMES = {
    "accelerate",
    "ctranslate2",
    "diffusers",
    "faster_whisper",
    "langchain_openai",
    "llama_cpp",
    "torch",
    "transformers",
    "xllamacpp",
}


def _loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_imports_point_one_way():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import workbench",
        "import workbench; [getattr(workbench, name) for name in workbench.__all__]",
        "import workbench; workbench.models.list()",
        "import workbench.cli",
    ],
)
def test_importing_loads_nothing_heavy(code: str):
    loaded = _loaded_after(code)
    assert not loaded.intersection(HEAVY), loaded.intersection(HEAVY)


def test_only_engine_files_name_a_runtime():
    offenders = []
    for path in (ROOT / "workbench").rglob("*.py"):
        if "engines" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            offenders += [(path.name, n) for n in names if n.split(".")[0] in RUNTIMES]
    assert not offenders


def test_public_names_all_resolve():
    assert sorted(workbench.__all__) == workbench.__all__
    for name in workbench.__all__:
        assert getattr(workbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        workbench.nosuch  # noqa: B018


def test_a_function_and_a_submodule_never_share_a_name():
    submodules = {module.name for module in pkgutil.iter_modules(workbench.__path__)}
    functions = {name for name in workbench.__all__ if callable(getattr(workbench, name))}
    assert not functions & submodules


def test_every_module_says_what_it_is():
    silent = []
    for module in pkgutil.walk_packages(workbench.__path__, "workbench."):
        source = importlib.util.find_spec(module.name)
        assert source is not None
        assert source.origin is not None
        tree = ast.parse(Path(source.origin).read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            silent.append(module.name)
    assert not silent
