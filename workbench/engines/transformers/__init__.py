"""Checkpoints of the transformers library: chat models and sentence embeddings, run by torch.

Only safetensors are read, never pickles, and no code that comes with a checkpoint is run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.engines.allocator import return_large_blocks
from workbench.engines.offload import open_checkpoint
from workbench.engines.quantize import check_nf4, quantize_checkpoint
from workbench.engines.quiet import quiet
from workbench.engines.transformers.chat import TransformersChat, first_line
from workbench.engines.transformers.embedding import TransformersEmbedding
from workbench.errors import SettingsError, Unavailable, UserInputError
from workbench.memory.matrix import check
from workbench.memory.request import LoadOptions
from workbench.settings import get_settings

if TYPE_CHECKING:
    from workbench.models.spec import ModelSpec

_POOLINGS = ("mean", "cls")


def load(
    spec: ModelSpec, path: Path, options: LoadOptions
) -> TransformersChat | TransformersEmbedding:
    """Load the checkpoint folder ``path`` as what ``spec.task`` says.

    Raises UnknownOption (what `workbench.memory.matrix` refuses, with its reason), UserInputError
    (pickled weights, no chat template), SettingsError, Unavailable.
    """
    dtype = options.compute_type or spec.dtype
    check(spec.id, "transformers", spec.task, replace(options, compute_type=dtype))
    unknown = set(spec.options) - ({"pooling"} if spec.task == "embedding" else set())
    if unknown or spec.options.get("pooling", "mean") not in _POOLINGS:
        raise SettingsError(
            f"The catalogue entry {spec.id} has options that transformers cannot honour: "
            f"{dict(spec.options)}.",
            f"An embedding model may have pooling: {' or '.join(_POOLINGS)}.",
        )
    if not any(path.glob("*.safetensors")):
        raise UserInputError(
            f"{path} has no safetensors weights.",
            "Pickled weights can run code and are never opened: convert them to safetensors.",
        )
    # weights are cast one by one: their blocks must not wait in an arena for the next model
    return_large_blocks()
    with quiet("transformers"):
        import torch
        import transformers

        threads = options.threads or get_settings().threads
        if threads is not None:
            torch.set_num_threads(threads)
        is_chat = spec.task == "chat"
        kind = transformers.AutoModelForCausalLM if is_chat else transformers.AutoModel
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
            model = _open(kind, path, dtype, options).eval()
        except Exception as error:  # whatever is wrong with a checkpoint, in the library's words
            raise Unavailable(
                f"transformers cannot load {spec.id}: {first_line(error)}",
                f"Check the files with `workbench models verify {spec.id}`.",
            ) from error
    if options.quantization == "nf4":
        check_nf4(model, spec.id, options.device)
    context = options.context_tokens or spec.context_tokens
    if not is_chat:
        return TransformersEmbedding(spec, model, tokenizer, context, options.device)
    if tokenizer.chat_template is None:
        raise UserInputError(
            f"{spec.id} has no chat template, so it is not a chat model.",
            "Choose an instruct or chat checkpoint.",
        )
    return TransformersChat(spec, model, tokenizer, context, options.device)


def _open(kind: Any, path: Path, dtype: str | None, options: LoadOptions) -> Any:
    """The model on its device, or with its layers waiting where ``options.offload`` says."""
    safe: dict[str, Any] = {"trust_remote_code": False}
    if options.offload == "disk":
        return open_checkpoint(kind, path, dtype, options.device, **safe)
    waits = options.offload == "sequential"
    # accelerate puts each weight on the device as it is read: no second copy in memory
    model = kind.from_pretrained(
        path,
        dtype=dtype or "auto",
        device_map="cpu" if waits else options.device,
        quantization_config=quantize_checkpoint(options.quantization, dtype),
        use_safetensors=True,
        local_files_only=True,
        **safe,
    )
    if waits:
        import accelerate

        model = accelerate.cpu_offload(model, execution_device=options.device)
    return model
