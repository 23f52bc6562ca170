"""Every way of loading that the matrix allows, run: what only moves weights changes no bit, what
rounds them stays close, and nothing gives values that are not numbers.

The cases come from `workbench.memory.matrix.candidates`: a new cell of the matrix is run by itself.
Cells of a CUDA device run where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench
from tests.contract.models import tiny_flow_model, tiny_image_model, tiny_llama
from workbench.engines import registry
from workbench.engines.base import ChatOptions, ImageOptions, Message
from workbench.errors import UnknownOption
from workbench.memory.matrix import candidates
from workbench.memory.request import LoadOptions

# the schedulers of diffusers 0.42 use calls that NumPy 2.4 deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

#: name -> (what builds it, task)
MODELS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "diffusers, UNet": (tiny_image_model, "image"),
    "diffusers, SD3 with T5": (tiny_flow_model, "image"),
    "transformers, chat": (lambda folder: tiny_llama(folder, 64), "chat"),
    "transformers, tied chat": (lambda folder: tiny_llama(folder, 64, tied=True), "chat"),
    "transformers, embedding": (lambda folder: tiny_llama(folder, 64), "embedding"),
}
#: ``|x - float32| / |float32|`` over the values of one answer: the logits of the first new token,
#: the vectors of two texts, the pixels (0 to 1) of two pictures. Each is about twice the largest
#: that was measured on a CPU (0.0077 bfloat16, 0.0006 float16, 0.0098 int8, 0.0115 fp8, 0.127 nf4).
#: The weights are random, so it is the rounding alone.
CLOSE = {
    "float32": 1e-5,
    "float16": 0.0015,
    "bfloat16": 0.016,
    "int8": 0.02,
    "fp8": 0.024,
    "nf4": 0.25,
}
#: Tiles are normed one by one, so a picture of several is another picture, though a similar one:
#: 22.1 dB (UNet) and 16.3 dB (SD3) were measured, and 14.1 and 13.4 dB for that of another seed.
TILED_PSNR_DB = 15.0

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _name(options: LoadOptions) -> str:
    chosen = (options.compute_type, options.quantization, options.offload)
    vae = [key for key in ("vae_tiling", "vae_slicing") if getattr(options, key)]
    return " ".join([options.device, *(str(value) for value in chosen if value), *vae])


def _cells() -> list[Any]:
    cells = [
        pytest.param(model, options, id=f"{model}: {_name(options)}")
        for model, (_, task) in MODELS.items()
        for device in DEVICES
        for options in candidates(model.partition(",")[0], task, device)
    ]
    if "cuda" not in DEVICES:
        absent = pytest.mark.skip(reason="there is no CUDA device, so its cells were not run")
        cells.append(pytest.param("cuda", LoadOptions(device="cuda"), marks=absent, id="cuda"))
    return cells


CELLS = _cells()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The models are too small for more threads, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def answer(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, LoadOptions], torch.Tensor]:
    """All values that a model computes for one request, in float32."""
    folders: dict[Any, Path] = {}

    @cache
    def ask(name: str, options: LoadOptions) -> torch.Tensor:
        build, task = MODELS[name]
        if build not in folders:
            folders[build] = build(tmp_path_factory.mktemp("tiny") / "model")
        spec = workbench.models.get(str(folders[build]), task)
        model = registry.load(spec, folders[build], options)
        try:
            return _answer(model, task)
        finally:
            model.close()

    return ask


def _answer(model: Any, task: str) -> torch.Tensor:
    if task == "embedding":
        return torch.from_numpy(model.embed(["one two three", "four five"]))
    if task == "chat":
        seen: list[torch.Tensor] = []
        hook = model._model.register_forward_hook(
            lambda _, __, output: seen.append(output.logits[:, -1].float().cpu())
        )
        list(model.stream([Message("user", "one two three")], ChatOptions(max_tokens=4)))
        hook.remove()
        return torch.cat(seen)
    # 64 px are four tiles for a decoder that was made for 32
    request = ImageOptions(
        "a red ball", width=64, height=64, steps=2, guidance_scale=2.0, sampler=_sampler(model),
        seed=7, batch=2,
    )  # fmt: skip
    shown: list[torch.Tensor] = []
    processor = model._pipe.image_processor
    convert = processor.pt_to_numpy

    def keep(pixels: torch.Tensor) -> Any:
        shown.append(pixels.float().cpu())
        return convert(pixels)

    processor.pt_to_numpy = keep
    list(model.draw(request))
    return shown[0]


def _sampler(model: Any) -> str:
    return "Euler" if hasattr(model._pipe, "transformer") else "DDIM"


@pytest.mark.parametrize(("name", "options"), [c for c in CELLS if c.values[1].offload != "none"])
def test_offload_changes_no_bit(answer, name: str, options: LoadOptions) -> None:
    resident = answer(name, replace(options, offload="none"))
    assert torch.equal(answer(name, options), resident)


@pytest.mark.parametrize(("name", "options"), CELLS)
def test_every_cell_computes_numbers_close_to_float32(
    answer, name: str, options: LoadOptions
) -> None:
    found = answer(name, options)
    exact = answer(name, _exact(options))
    assert torch.isfinite(found).all()
    if MODELS[name][1] == "chat":
        # a rounded model may choose another word, and then all that follows differs
        found, exact = found[:1], exact[:1]
    bound = CLOSE[options.compute_type] + (CLOSE[options.quantization or "float32"])
    assert ((found - exact).norm() / exact.norm()).item() <= bound


@pytest.mark.parametrize("name", [name for name, (_, task) in MODELS.items() if task == "image"])
def test_a_tiled_picture_is_similar_and_a_sliced_one_the_same(answer, name: str) -> None:
    exact = answer(name, LoadOptions(compute_type="float32"))
    tiled = answer(name, LoadOptions(compute_type="float32", vae_tiling=True))
    sliced = answer(name, LoadOptions(compute_type="float32", vae_slicing=True))
    assert _psnr_db(tiled, exact) > TILED_PSNR_DB
    # the two pictures have two seeds: the bound must tell them apart
    assert _psnr_db(exact[0], exact[1]) < TILED_PSNR_DB
    torch.testing.assert_close(sliced, exact, atol=1e-5, rtol=0)  # one by one or together


def _exact(options: LoadOptions) -> LoadOptions:
    """The same way to decode, everything in float32 and resident."""
    return LoadOptions(device=options.device, compute_type="float32", vae_tiling=options.vae_tiling)


def _psnr_db(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Peak signal to noise ratio of values from 0 to 1."""
    return -10 * (found - exact).square().mean().log10().item()


@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_quantized_weights_are_really_smaller(answer, quantization: str) -> None:
    exact = answer("diffusers, UNet", LoadOptions(compute_type="float32"))
    options = LoadOptions(compute_type="float32", quantization=quantization)  # type: ignore[arg-type]
    assert not torch.equal(answer("diffusers, UNet", options), exact)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("diffusers, UNet", {"offload": "group"}, "both are the same memory"),
        ("diffusers, UNet", {"quantization": "nf4"}, "on a GPU only"),
        ("diffusers, UNet", {"quantization": "int8", "offload": "disk"}, "are not quantized"),
        ("diffusers, UNet", {"cache_type": "q8_0"}, "no choice of cache type"),
        ("transformers, chat", {"vae_tiling": True}, "no picture decoder"),
        ("transformers, chat", {"gpu_layers": 3}, "use an offload"),
        ("transformers, chat", {"quantization": "fp8"}, "cannot quantize to fp8"),
    ],
)
def test_what_the_matrix_refuses_is_refused_before_loading(
    name: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    engine, task = name.partition(",")[0], MODELS[name][1]
    folder = tmp_path / "never-opened"
    folder.mkdir()
    marker = "model_index.json" if task == "image" else "config.json"
    (folder / marker).write_text("{}")
    spec = workbench.models.get(str(folder), task)
    assert spec.engine == engine
    with pytest.raises(UnknownOption, match=reason):
        registry.load(spec, folder, LoadOptions(**options))


def test_nf4_rows_that_are_no_whole_blocks_are_refused(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "narrow", 32)
    spec = workbench.models.get(str(folder), "chat")
    with pytest.raises(UnknownOption, match="multiple of 64, and one has 32"):
        registry.load(spec, folder, LoadOptions(quantization="nf4"))
