"""Saving and showing pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import workbench
from workbench.errors import UnknownOption, UserInputError
from workbench.tasks.image import Pictures, read_recipe

pytestmark = pytest.mark.usefixtures("stub_models", "own_pool")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder: `tmp_path` itself holds the models of these tests."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def draw(batch: int = 1, prompt: str = "a <b>red</b> ball") -> Pictures:
    return workbench.draw(prompt, seed=7, batch=batch, steps=2)


def test_one_picture_has_the_name_asked_for(out: Path) -> None:
    pictures = draw()
    assert pictures.files == ()
    assert pictures.save(str(out / "a.png")) == [out / "a.png"]
    assert pictures.files == (out / "a.png",)
    assert Image.open(out / "a.png").convert("RGB").tobytes() == pictures.images[0].tobytes()


def test_several_pictures_are_numbered_and_each_tells_its_own_seed(out: Path) -> None:
    paths = draw(batch=3).save(out / "tranh.đỏ.webp")
    assert [path.name for path in paths] == [f"tranh.đỏ-{i}.webp" for i in range(3)]
    assert [read_recipe(path)["seeds"] for path in paths] == [[7], [8], [9]]


def test_in_a_folder_pictures_are_called_by_their_seeds(out: Path) -> None:
    assert draw(batch=2).save(out) == [out / "seed-7.png", out / "seed-8.png"]


def test_a_file_is_overwritten_and_nothing_else_is_left(out: Path) -> None:
    path = out / "a.png"
    path.write_text("old")
    draw().save(path)
    assert Image.open(path).size == (32, 32)
    assert list(out.iterdir()) == [path]


def test_metadata_can_be_left_out(out: Path) -> None:
    (path,) = draw().save(out / "a.png", metadata=False)
    assert "parameters" not in Image.open(path).info


def test_a_missing_folder_is_a_clear_error(out: Path) -> None:
    with pytest.raises(UserInputError, match="There is no folder"):
        draw().save(out / "none" / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a"])
def test_an_unknown_format_writes_nothing(out: Path, name: str) -> None:
    with pytest.raises(UnknownOption):
        draw(batch=2).save(out / name)
    assert list(out.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = out / "a.png"
    path.write_text("old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserInputError, match="No space left on device"):
        draw().save(path)
    assert path.read_text() == "old"
    assert list(out.iterdir()) == [path]


def test_to_dict_is_json_and_knows_the_files(out: Path) -> None:
    pictures = draw(batch=2)
    assert pictures.to_dict()["files"] == []
    pictures.save(out / "a.png")
    found = json.loads(json.dumps(pictures.to_dict()))
    assert found["files"] == [str(out / "a-0.png"), str(out / "a-1.png")]
    assert found["seeds"] == [7, 8]
    assert found["recipe"] == pictures.recipe
    assert found["seconds"] == pictures.seconds


def test_in_a_notebook_each_picture_has_its_seed_and_the_prompt_is_escaped() -> None:
    shown = draw(batch=2)._repr_html_()
    assert shown.count('src="data:image/png;base64,') == 2
    assert "seed 7" in shown
    assert "seed 8" in shown
    assert "<b>" not in shown
    assert "&lt;b&gt;red" in shown
