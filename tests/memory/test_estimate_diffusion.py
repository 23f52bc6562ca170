"""Diffusion estimates: measured peaks, and what must hold for any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.engines.trace import with_profiles
from workbench.memory.estimate import estimate
from workbench.memory.facts import ModelFacts
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.project import project_root

_FOLDER = project_root() / "benchmarks" / "memory"
GOLDEN: dict[str, Any] = json.loads(
    (_FOLDER / "golden" / "diffusion.json").read_text(encoding="utf-8")
)


def _estimate(row: dict[str, Any], **changes: Any) -> Any:
    facts = with_profiles(ModelFacts.model_validate(row["facts"]))
    machine = Machine(context_bytes={"diffusers": row["measured"]["context_bytes"]})
    size = RequestSize(**row["size"])
    return estimate(facts, changes.get("options", LoadOptions(**row["options"])), size, machine)


@pytest.mark.parametrize("case", sorted(GOLDEN))
def test_measured_peaks_are_predicted(case: str) -> None:
    row = GOLDEN[case]
    found = _estimate(row)
    peak = row["measured"]["peak_bytes"]
    assert found.is_known
    assert abs(found.peak_bytes / peak - 1) <= 0.12
    assert peak <= found.upper_bytes <= 1.25 * peak


def test_the_median_error_is_small() -> None:
    errors = sorted(
        abs(_estimate(row).peak_bytes / row["measured"]["peak_bytes"] - 1)
        for row in GOLDEN.values()
    )
    assert errors[len(errors) // 2] <= 0.05


def _shipped(model: str) -> ModelFacts:
    """A real model as its shapes say, without weights: activations are the whole estimate."""
    shapes = {
        "sd15": ("UNet2DConditionModel", {"cross_attention_dim": 768, "attention_head_dim": 8}),
    }
    architecture, config = shapes[model]
    vae = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "sample_size": 512,
    }
    parts = [
        {"name": "unet", "architecture": architecture, "config": {**config, "sample_size": 64}},
        {"name": "vae", "architecture": "AutoencoderKL", "config": vae},
    ]
    facts = {
        "model": model,
        "task": "image",
        "engine": "diffusers",
        "components": [{**part, "weights": {"weights_bytes": 0}} for part in parts],
    }
    return with_profiles(ModelFacts.model_validate(facts))


SIDES = st.integers(2, 32).map(lambda n: n * 64)


def _peak(options: LoadOptions, **size: Any) -> int:
    return estimate(_shipped("sd15"), options, RequestSize(**size), Machine()).peak_bytes


@settings(deadline=None, max_examples=40)
@given(SIDES, SIDES, st.integers(1, 16), st.sampled_from(["float32", "bfloat16"]))
def test_more_pictures_and_larger_ones_never_take_less(
    width: int, height: int, batch: int, dtype: str
) -> None:
    options = LoadOptions(compute_type=dtype)
    base = _peak(options, width=width, height=height, batch=batch)
    assert base <= _peak(options, width=width + 64, height=height, batch=batch)
    assert base <= _peak(options, width=width, height=height + 64, batch=batch)
    assert base <= _peak(options, width=width, height=height, batch=batch + 1)


@settings(deadline=None, max_examples=40)
@given(SIDES, SIDES, st.integers(1, 16))
def test_tiling_and_slicing_never_take_more_for_large_pictures(
    width: int, height: int, batch: int
) -> None:
    size = {"width": width + 512, "height": height + 512, "batch": batch}
    plain = _peak(LoadOptions(), **size)
    assert _peak(LoadOptions(vae_tiling=True), **size) <= plain
    assert _peak(LoadOptions(vae_slicing=True), **size) <= plain
    assert _peak(LoadOptions(vae_tiling=True, vae_slicing=True), **size) <= plain


def test_a_picture_of_512_pixels_decodes_in_960_values_a_pixel() -> None:
    found = estimate(_shipped("sd15"), LoadOptions(), RequestSize(width=512, height=512), Machine())
    assert found.binding_phase.name == "decode_image"
    # measured on a CPU in float32: 960.5 MiB
    assert found.term("activations") == pytest.approx(960.5 * 2**20, rel=0.01)


def _stored_in_16_bits(facts: ModelFacts, *mebibytes: int) -> ModelFacts:
    parts = []
    for part, size in zip(facts.components, mebibytes, strict=True):
        weights = part.weights.model_copy(
            update={"weights_bytes": size * 2**20, "bytes_by_dtype": {"F16": size * 2**20}}
        )
        parts.append(part.model_copy(update={"weights": weights}))
    return facts.model_copy(update={"components": tuple(parts)})


@pytest.mark.parametrize("sizes", [(3000, 300), (300, 3000)])
def test_the_largest_part_is_read_while_the_others_are_not_there(sizes: tuple[int, int]) -> None:
    facts = _stored_in_16_bits(_shipped("sd15"), *sizes)

    def load_bytes(dtype: str, device: str = "cpu") -> int:
        options = LoadOptions(compute_type=dtype, device=device)
        found = estimate(facts, options, RequestSize(width=64, height=64), Machine())
        return found.phases[0].size_bytes // 2**20

    # 3000 stored and cast, then 300 more; at the end 300 stored and all cast
    assert load_bytes("bfloat16") == 3000 + 3000 - 3300
    # 3000 stored and 6000 cast, then 300 and 600 beside the 6000
    assert load_bytes("float32") == 3000 + 6000 - 6600
    assert load_bytes("float16") == 0
    assert load_bytes("bfloat16", "cuda") == 0


def test_offload_holds_one_part_and_leaves_the_rest_on_the_host() -> None:
    facts = _shipped("sd15")
    parts = tuple(
        part.model_copy(
            update={"weights": part.weights.model_copy(update={"weights_bytes": size * 2**20})}
        )
        for part, size in zip(facts.components, (3000, 300), strict=True)
    )
    facts = facts.model_copy(update={"components": parts})
    size = RequestSize(width=512, height=512)

    def on_gpu(offload: Any) -> Any:
        options = LoadOptions(device="cuda", compute_type="float16", offload=offload)
        return estimate(facts, options, size, Machine())

    order = ["none", "model", "group_stream", "group", "sequential"]
    peaks = [on_gpu(offload).peak_bytes for offload in order]
    assert peaks == sorted(peaks, reverse=True)
    assert sum(t.size_bytes for t in on_gpu("none").host if t.name == "weights") == 0
    assert sum(t.size_bytes for t in on_gpu("model").host if t.name == "weights") == 3300 * 2**20
    assert sum(t.size_bytes for t in on_gpu("disk").host if t.name == "weights") == 0


def test_an_unknown_architecture_says_so_and_has_a_wide_bound() -> None:
    facts = _shipped("sd15")
    unknown = facts.components[0].model_copy(
        update={
            "architecture": "NewTransformer2DModel",
            "activations": {},
            "weights": facts.components[0].weights.model_copy(update={"weights_bytes": 10**9}),
        }
    )
    facts = facts.model_copy(update={"components": (unknown, facts.components[1])})
    found = estimate(facts, LoadOptions(), RequestSize(width=64, height=64), Machine())
    assert not found.is_known
    assert found.upper_bytes > 1.5 * found.peak_bytes


def test_golden_rows_are_of_published_shapes() -> None:
    assert Path(_FOLDER / "cases" / "diffusion.yaml").is_file()
    assert all(row["facts"]["engine"] == "diffusers" for row in GOLDEN.values())
