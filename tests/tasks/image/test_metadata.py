"""What a picture file tells about how it was made."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.errors import InvalidMedia, UnknownOption
from workbench.tasks.image.metadata import FORMATS, encode, parameters, read_recipe

RECIPE: dict[str, Any] = {
    "version": 1,
    "task": "text-to-image",
    "prompt": "một hình tròn màu đỏ, lớn",
    "negative_prompt": "",
    "size": "32x32",
    "steps": 8,
    "guidance_scale": 2.0,
    "sampler": "DPM++ 2M",
    "seeds": [7],
    "model": {"id": "shapes-32", "sha256": "0123456789abcdef" * 4, "files": {}},
    "scheduler": {"class": "DPMSolverMultistepScheduler", "trained_betas": None},
    "libraries": {"workbench": "0.1.0"},
}
IMAGE = Image.effect_noise((32, 32), 80).convert("RGB")

#: any text a file can hold: surrogates are no characters, NUL ends an EXIF text
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300)


def written(folder: Path, suffix: str, recipe: dict[str, Any] | None) -> Path:
    path = folder / f"picture{suffix}"
    path.write_bytes(encode(IMAGE, suffix, recipe))
    return path


@pytest.mark.parametrize("suffix", [*FORMATS, ".PNG"])
def test_a_recipe_comes_back_from_every_format(tmp_path: Path, suffix: str) -> None:
    assert read_recipe(written(tmp_path, suffix, RECIPE)) == RECIPE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@settings(deadline=None)  # a busy machine is no failure
@given(prompt=texts)
def test_any_prompt_comes_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, prompt: str
) -> None:
    path = written(tmp_path_factory.mktemp("any"), suffix, {**RECIPE, "prompt": prompt})
    assert read_recipe(path)["prompt"] == prompt


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_lossless_formats_keep_every_pixel(suffix: str) -> None:
    back = Image.open(io.BytesIO(encode(IMAGE, suffix, RECIPE)))
    assert back.convert("RGB").tobytes() == IMAGE.tobytes()


def test_another_format_is_refused() -> None:
    with pytest.raises(UnknownOption, match=r"written as \.gif") as caught:
        encode(IMAGE, ".gif", None)
    assert caught.value.remedy == "End the name with .png, .jpg, .jpeg, .webp."
    with pytest.raises(UnknownOption, match="a file without a suffix"):
        encode(IMAGE, "", None)


def test_parameters_are_written_as_the_web_ui_writes_them() -> None:
    recipe = {
        **RECIPE,
        "prompt": "a red ball",
        "negative_prompt": "blue",
        "model": {**RECIPE["model"], "id": "org/model, new"},
    }
    assert parameters(recipe) == (
        "a red ball\n"
        "Negative prompt: blue\n"
        "Steps: 8, Sampler: DPM++ 2M, CFG scale: 2.0, Seed: 7, Size: 32x32, "
        'Model hash: 0123456789, Model: "org/model, new", Version: workbench 0.1.0'
    )


def test_parameters_leave_out_what_is_not_known() -> None:
    recipe = {**RECIPE, "model": {"id": "local", "sha256": None, "files": {}}}
    assert parameters(recipe).splitlines()[1:] == [
        "Steps: 8, Sampler: DPM++ 2M, CFG scale: 2.0, Seed: 7, Size: 32x32, "
        "Model: local, Version: workbench 0.1.0"
    ]


def test_the_web_ui_finds_its_text_in_png() -> None:
    info = Image.open(io.BytesIO(encode(IMAGE, ".png", RECIPE))).info
    assert info["parameters"] == parameters(RECIPE)
    assert json.loads(info["recipe"]) == RECIPE


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_the_web_ui_finds_its_text_in_exif(suffix: str) -> None:
    """Read as piexif.helper.UserComment.load does: eight bytes of encoding, UTF-16 big endian."""
    exif = Image.open(io.BytesIO(encode(IMAGE, suffix, RECIPE))).getexif()
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\x00"
    assert comment[8:].decode("utf_16_be") == parameters(RECIPE)


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_a_recipe_a_file_tells_nothing(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, None)
    assert b"shapes-32" not in path.read_bytes()
    with pytest.raises(InvalidMedia, match="carries no recipe"):
        read_recipe(path)


def test_reading_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="There is no file"):
        read_recipe(tmp_path / "none.png")
    text = tmp_path / "text.png"
    text.write_text("hello")
    with pytest.raises(InvalidMedia, match="is not a picture"):
        read_recipe(text)
    with pytest.raises(InvalidMedia, match="cannot be read"):
        read_recipe(tmp_path)


def test_a_recipe_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="has version 2"):
        read_recipe(written(tmp_path, ".png", {**RECIPE, "version": 2}))


@settings(deadline=None)  # a busy machine is no failure
@given(junk=st.binary(max_size=400), cut=st.integers(0, 2000))
def test_damaged_files_are_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, cut: int
) -> None:
    whole = encode(IMAGE, ".png", RECIPE)
    path = tmp_path_factory.mktemp("junk") / "picture.png"
    path.write_bytes(whole[:cut] + junk)
    try:
        assert read_recipe(path) == RECIPE
    except InvalidMedia as error:
        assert "\n" not in str(error)
