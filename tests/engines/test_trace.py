"""The tracer counts to the byte, and meta tensors count like real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn.functional import scaled_dot_product_attention

from workbench.engines import trace as tracing
from workbench.engines.trace import trace, trace_component, with_profiles
from workbench.memory.estimate import profiles
from workbench.memory.facts import Component, ModelFacts
from workbench.memory.headers import WeightsHeader

VAE = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
    "sample_size": 32,
}
UNET = {
    "sample_size": 8,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}


def test_a_linear_layer_makes_its_output() -> None:
    with torch.device("meta"):
        layer, given = torch.nn.Linear(8, 16), torch.empty(4, 8)
    found = trace(lambda: layer(given))
    assert found.peak_bytes == 4 * 16 * 4
    assert max(found.cpu_bytes) == found.peak_bytes


def test_what_has_died_is_not_counted() -> None:
    with torch.device("meta"):
        layers = torch.nn.Sequential(*(torch.nn.Linear(32, 32, bias=False) for _ in range(5)))
        given = torch.empty(10, 32)
    # the input of a layer and its output, however many layers there are
    assert trace(lambda: layers(given)).peak_bytes == 2 * 10 * 32 * 4


def test_views_and_changes_in_place_make_nothing() -> None:
    given = torch.empty(10, 32, device="meta")
    assert trace(lambda: given.view(320)[5:].add_(1).relu_()).peak_bytes == 0


def test_a_convolution_runs_on_a_copy_of_its_weights_and_of_the_larger_of_its_tensors() -> None:
    with torch.device("meta"):
        layer = torch.nn.Conv2d(3, 16, 3, padding=1)
        given = torch.empty(1, 3, 8, 8)
    found = trace(lambda: layer(given))
    made = 16 * 8 * 8 * 4
    assert found.peak_bytes == made
    assert max(found.cpu_bytes) == made + 16 * 3 * 9 * 4 + made


def test_a_pointwise_convolution_in_16_bits_is_summed_in_32() -> None:
    with torch.device("meta"):
        layer = torch.nn.Conv2d(8, 16, 1, dtype=torch.bfloat16)
        given = torch.empty(1, 8, 4, 4, dtype=torch.bfloat16)
    made = 16 * 16 * 2
    expected = made + 8 * 16 * 2 + 8 * 16 * 2 + 2 * made
    assert max(trace(lambda: layer(given)).cpu_bytes) == expected


@pytest.mark.parametrize("tokens", [16, 4096])
def test_attention_makes_no_square_of_its_tokens(tokens: int) -> None:
    query, key, value = (torch.empty(1, 2, tokens, 8, device="meta") for _ in range(3))
    found = trace(lambda: scaled_dot_product_attention(query, key, value))
    assert found.peak_bytes == tokens * 2 * 8 * 4 + tokens * 2 * 4


def _allocated(call: Any) -> int:
    """The peak of torch's own allocator during ``call()``, by its profiler."""
    with (
        torch.no_grad(),
        torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile,
    ):
        call()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    now = peak = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        now += size
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("kind", ["unet", "vae"])
def test_the_meta_device_counts_what_torch_allocates(kind: str) -> None:
    def run(device: str) -> Any:
        with torch.device(device):
            if kind == "vae":
                vae = AutoencoderKL(**VAE).eval()
                latents = torch.zeros(2, 4, 16, 16)  # of one, small convolutions go another way
                return lambda: vae.decode(latents, return_dict=False)
            unet = UNet2DConditionModel(**UNET).eval()
            given = torch.zeros(2, 4, 16, 16), torch.ones(()), torch.zeros(2, 77, 16)
            return lambda: unet(*given, return_dict=False)

    on_meta = trace(run("meta"))
    on_cpu = trace(run("cpu"))
    # a CPU normalizes a tensor as attention lays it out, which elsewhere is copied first
    assert on_meta.peak_bytes == pytest.approx(on_cpu.peak_bytes, rel=0.01)
    if kind == "unet":
        assert on_meta.live_bytes == on_cpu.live_bytes
    real = _allocated(run("cpu"))
    # torch's allocator also serves the blocked copies of some convolutions
    assert on_meta.peak_bytes * 0.98 <= real <= max(on_meta.cpu_bytes) * 1.02


def test_a_profile_says_what_another_size_takes() -> None:
    found = trace_component("AutoencoderKL", VAE)
    vae = torch.nn.Module.to(AutoencoderKL.from_config(VAE), "meta")
    for side, items in ((24, 1), (80, 1), (40, 3)):
        latents = torch.empty(items, 4, side, side, device="meta")
        real = trace(lambda given=latents: vae.decode(given, return_dict=False))
        pixels = items * (2 * side) ** 2
        assert found["decode 32"].elements(pixels, items) * 4 == pytest.approx(
            real.peak_bytes, rel=0.01
        )
        assert found["decode 32 cpu"].elements(pixels, items) * 4 == pytest.approx(
            max(real.cpu_bytes), rel=0.01
        )


def test_the_largest_layer_and_block_are_known() -> None:
    found = trace_component("UNet2DConditionModel", UNET)
    unet = UNet2DConditionModel(**UNET)
    largest = max(sum(p.numel() for p in m.parameters(recurse=False)) for m in unet.modules())
    assert found["leaf"].elements(0) == largest
    assert largest < found["block"].elements(0) < sum(p.numel() for p in unet.parameters())


def test_a_block_that_is_left_out_is_no_block() -> None:
    found = trace_component("AutoencoderKL", {**VAE, "mid_block_add_attention": False})
    assert found["block"].elements(0) > found["leaf"].elements(0)
    assert "decode 32 cpu" in found


def _facts(architecture: str, config: dict[str, Any]) -> ModelFacts:
    part = Component(
        name="vae", architecture=architecture, config=config, weights=WeightsHeader(weights_bytes=1)
    )
    return ModelFacts(model="m", task="image", engine="diffusers", components=(part,))


def test_an_architecture_is_traced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "_cache_file", lambda key: tmp_path / "profiles" / f"{key}.json")
    first = with_profiles(_facts("AutoencoderKL", VAE))
    assert "decode 32 cpu" in first.components[0].activations

    def refuse(*_: Any) -> Any:
        raise AssertionError("traced again")

    monkeypatch.setattr(tracing, "trace_component", refuse)
    assert with_profiles(_facts("AutoencoderKL", {**VAE, "scaling_factor": 2.0})) != first
    again = with_profiles(_facts("AutoencoderKL", VAE))
    assert again == first
    (kept,) = (tmp_path / "profiles").iterdir()
    assert json.loads(kept.read_text())["decode 32"]["unit"] == "pixel"


def test_what_cannot_be_traced_has_no_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "_cache_file", lambda key: tmp_path / f"{key}.json")
    broken = with_profiles(_facts("AutoencoderKL", {**VAE, "up_block_types": ["Nonsense"] * 2}))
    assert broken.components[0].activations == {}
    assert with_profiles(_facts("LlamaForCausalLM", {})).components[0].activations == {}


@pytest.mark.parametrize("model", ["sd15", "sdxl", "sd3", "flux", "pixart", "shapes-32"])
def test_published_models_need_no_tracing(model: str) -> None:
    shipped = {
        json.loads(f.read_text())[k]["model"]
        for f in profiles._SHIPPED.glob("*.json")
        for k in json.loads(f.read_text())
    }
    assert any(name.startswith(f"{model} ") for name in shipped)
