"""Parts of a pipeline are read one by one, in an order that keeps the peak low."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.contract.models import tiny_image_model
from workbench.engines.diffusers_parts import read_parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_image_model(tmp_path_factory.mktemp("tiny"))


def test_the_largest_part_is_read_first(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    parts = read_parts(folder, dict(reversed(index.items())), None, "bfloat16")
    sizes = [sum(f.stat().st_size for f in (folder / n).glob("*.safetensors")) for n in parts]
    assert set(parts) == {"text_encoder", "unet", "vae"}
    assert sizes == sorted(sizes, reverse=True)
    assert {part.dtype for part in parts.values()} == {torch.bfloat16}


def test_a_variant_is_taken_where_a_part_has_it(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("unet", "vae"):
        (tmp_path / part).symlink_to(folder / part)
    encoder = tmp_path / "text_encoder"
    encoder.mkdir()
    (encoder / "config.json").write_bytes((folder / "text_encoder" / "config.json").read_bytes())
    weights = (folder / "text_encoder" / "model.safetensors").read_bytes()
    (encoder / "model.fp16.safetensors").write_bytes(weights)
    assert set(read_parts(tmp_path, index, "fp16", "float32")) == {"text_encoder", "unet", "vae"}
