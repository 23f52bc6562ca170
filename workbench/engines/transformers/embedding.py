"""Sentence embeddings: one unit vector a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.engines.transformers.chat import free_memory
from workbench.engines.worker import torch_thread
from workbench.errors import UserInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.models.spec import ModelSpec

_BATCH_TEXTS = 32


class TransformersEmbedding:
    """One loaded sentence encoder. Source of the pooling: Reimers and Gurevych, Sentence-BERT."""

    def __init__(
        self,
        spec: ModelSpec,
        model: Any,
        tokenizer: Any,
        context_tokens: int | None,
        device: str = "cpu",
    ) -> None:
        self.spec = spec
        self._model: Any = model
        self._tokenizer = tokenizer
        # weights that wait elsewhere are on no device, so the model itself cannot tell
        self._device = device
        self._context_tokens = context_tokens or int(tokenizer.model_max_length)
        self._pooling = spec.options.get("pooling", "mean")

    def close(self) -> None:
        """Free the weights. Calling it twice does nothing."""
        self._model = None
        free_memory()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One unit vector a text: shape ``(len(texts), dimension)``.

        Raises UserInputError for a text longer than the context: half of it would be left out.
        """
        import numpy as np

        encoded: list[list[int]] = self._tokenizer(list(texts))["input_ids"] if texts else []
        for number, tokens in enumerate(encoded):
            if len(tokens) > self._context_tokens:
                raise UserInputError(
                    f"Text {number + 1} has {len(tokens)} tokens and {self.spec.id} takes at most "
                    f"{self._context_tokens}.",
                    "Split it into shorter pieces first.",
                )
        vectors = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        # texts of one length side by side, so that little is padding
        order = sorted(range(len(texts)), key=lambda number: len(encoded[number]))
        for start in range(0, len(order), _BATCH_TEXTS):
            rows = order[start : start + _BATCH_TEXTS]
            texts_of_batch = [encoded[row] for row in rows]
            vectors[rows] = torch_thread.run(partial(self._embed_batch, texts_of_batch))
        return vectors

    def _embed_batch(self, encoded: list[list[int]]) -> NDArray[np.float32]:
        import torch

        batch = self._tokenizer.pad({"input_ids": encoded}, return_tensors="pt")
        batch = batch.to(self._device)
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state.float()
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors
