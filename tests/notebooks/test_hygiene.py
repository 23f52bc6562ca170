"""What every notebook keeps to: they run elsewhere (`pytest --nbmake notebooks/`)."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_LINES = 15


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(request.param.read_text(encoding="utf-8"))
    return content


def _code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _source(cell: dict[str, Any]) -> str:
    """The cell as Python: magics as IPython runs them."""
    text = "".join(cell["source"])
    return TransformerManager().transform_cell(text) if cell["cell_type"] == "code" else text


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS][:1] == ["00_quickstart"]


def test_committed_without_outputs(notebook):
    for cell in _code(notebook):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert not set(cell["metadata"]) - {"tags"}


def test_one_parameters_cell_that_starts_fast(notebook):
    tagged = [c for c in _code(notebook) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0] is _code(notebook)[0]
    values: dict[str, Any] = {}
    exec(_source(tagged[0]), values)
    assert values["fast"] is True
    rest = "\n".join(_source(cell) for cell in _code(notebook)[1:])
    used = {node.id for node in ast.walk(ast.parse(rest)) if isinstance(node, ast.Name)}
    assert "fast" in used, "the fast parameter changes nothing"


def test_cells_are_short_and_define_nothing(notebook):
    logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.Lambda)
    for cell in _code(notebook):
        source = _source(cell)
        assert len(source.splitlines()) <= MOST_LINES, source
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, logic)]
        assert not found, f"logic belongs into the package: {source}"


def test_opens_with_its_question(notebook):
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown"
    assert _source(first).startswith("# ")
    assert "?" in _source(first)


def test_claims_are_asserted(notebook):
    tree = ast.parse("\n".join(_source(cell) for cell in _code(notebook)))
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def test_files_are_found_whatever_the_folder(notebook):
    text = "\n".join(_source(cell) for cell in _code(notebook))
    assert "project_root()" in text
    assert "../" not in text
