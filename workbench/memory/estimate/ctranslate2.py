"""Whisper in CTranslate2, run by faster-whisper.

What is live when: loading (the stored weights beside the converted ones), finding speech, one
pass of the encoder over a 30 s window, decoding with its two key-value caches (aligning words
included), and decoding again by sampling. Constants were measured on Linux with glibc; each says
what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.memory.estimate.weights import STORED_BYTES
from workbench.memory.facts import ModelFacts
from workbench.memory.headers import WeightsHeader
from workbench.memory.machine import MIB, Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, Term, about, exact

#: Compute type -> bytes of a quantizable weight, bytes of every other float.
#: Source: ``compute_type_to_data_type`` and ``get_default_float_type`` of CTranslate2.
COMPUTE_TYPES = {
    "float32": (4, 4),
    "float16": (2, 2),
    "bfloat16": (2, 2),
    "int16": (2, 4),
    "int8": (1, 4),
    "int8_float32": (1, 4),
    "int8_float16": (1, 2),
    "int8_bfloat16": (1, 2),
}

#: Compute type -> dtype of its weights in the table; all others are I8.
_WEIGHT_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int16": "I16"}

_SAMPLES_PER_SECOND = 16_000
_WINDOW_SECONDS = 30.0
_FRAMES_PER_SECOND = 100
#: Whisper writes at most half of its 448 positions in one window.
_MOST_NEW_TOKENS = 224
#: What people say in half a minute, with its two timestamps: 3.7 tokens a second.
_TOKENS_PER_SECOND = 3.7
_PROMPT_TOKENS = 3
#: faster-whisper samples that many texts where the first one looks wrong.
_FALLBACK_TEXTS = 5
#: The tokenizer of tokenizers (18 MiB) and CTranslate2's two maps of the vocabulary.
_TOKENIZER_BYTES = 30 * MIB
_TOKENIZER_WORDS = 51_865
#: Threads' stacks, oneDNN's compiled kernels and OpenBLAS's buffers, made in the first window.
_RUNTIME_BYTES = 32 * MIB
#: The pool of threads, the stream's buffers and the table itself, while a file is read.
_LOADER_BYTES = 4 * MIB
#: Tensors of shape (positions, width) that are live in an encoder layer beside its scores:
#: input, norm, the fused projection (3), its three parts, context, output and a sum.
_ENCODER_TENSORS = 11
#: The same while the decoder projects the encoder's output for one layer: the fused keys and
#: values (2) and their transposed copies (2), and what is left of them in the heap.
_DECODER_TENSORS = 4.5
#: glibc gives freed blocks above this size back at once; smaller holes stay in the heap.
_HEAP_BLOCK_BYTES = 32 * MIB
#: onnxruntime with the voice activity model (Silero) open.
_VAD_BYTES = 31.5 * MIB
#: Copies of the recording while speech is looked for, and what the model holds a second of
#: sound; it takes at most 320 s at once.
_VAD_COPIES = 2.9
_VAD_BYTES_PER_SECOND = 0.235 * MIB
_VAD_BLOCK_SECONDS = 320.0


@dataclass(frozen=True)
class _Whisper:
    """Dimensions from the variable table, under OpenAI's names, and bytes of one activation."""

    n_mels: int
    n_audio_ctx: int
    n_state: int
    n_head: int
    n_vocab: int
    n_text_ctx: int
    n_ffn: int
    n_audio_layer: int
    n_text_layer: int
    value_bytes: int

    @property
    def hidden_bytes(self) -> int:
        """One tensor of shape (encoder positions, width)."""
        return self.n_audio_ctx * self.n_state * self.value_bytes

    @property
    def scores_bytes(self) -> int:
        """Attention scores of one encoder layer: heads x positions x positions."""
        return self.n_head * self.n_audio_ctx**2 * self.value_bytes

    def cross_kv_cache_bytes(self, batch: int = 1) -> int:
        """Keys and values of the encoder's output; beams share them."""
        return 2 * self.n_text_layer * batch * self.hidden_bytes

    def kv_cache_bytes(self, tokens: int, sequences: int) -> int:
        """Keys and values of ``tokens`` decoder positions; each beam has its own."""
        return 2 * self.n_text_layer * self.n_state * tokens * sequences * self.value_bytes


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """Weights and tokenizer stay; windows are transcribed one after the other."""
    header = facts.component("model").weights
    on_cpu = options.device == "cpu"
    default = "int8" if on_cpu else "float16"
    compute_type = options.compute_type or facts.options.get("compute_type") or default
    if header.facts.get("spec") != "WhisperSpec" or compute_type not in COMPUTE_TYPES:
        return _unknown(header, f"ctranslate2/{header.facts.get('spec')}/{compute_type}", machine)
    model = _model(header, COMPUTE_TYPES[compute_type][1])
    weights = exact("weights", weights_bytes(header, compute_type), "variable table")
    tokenizer = _TOKENIZER_BYTES * model.n_vocab / _TOKENIZER_WORDS
    process = (
        about("context", machine.context_bytes["ctranslate2"], 0.05, machine.name),
        about("tokenizer", tokenizer, 0.15, "measured: tokenizer.json and CTranslate2's own"),
    )
    load = Phase(name="load", terms=(_conversion(header, model, compute_type, weights, tokenizer),))
    family = f"ctranslate2/whisper/{compute_type}"
    running = _running_phases(model, size, _hole_bytes(model, compute_type))
    if on_cpu:
        resident = (*process, weights)
        return Estimate(family=family, resident=resident, phases=(load, *running))
    context = machine.context_bytes.get(f"ctranslate2@{options.device.partition(':')[0]}", 0)
    device = (about("context", context, 0.25, machine.name), weights)
    # the stored weights are converted in host memory before they are moved
    host = (*process, about("conversion", header.weights_bytes, 0.3, "variable table"))
    wide = tuple(
        phase.model_copy(update={"terms": tuple(_on_gpu(term) for term in phase.terms)})
        for phase in running
        if phase.name in ("encode", "decode", "fallback")
    )
    return Estimate(family=family + "/cuda", resident=device, phases=wide, host=host)


def weights_bytes(header: WeightsHeader, compute_type: str) -> int:
    """Bytes of all variables after CTranslate2 converted them to ``compute_type``.

    Linear and embedding weights take the compute type; int8 adds a scale and, on a CPU, a
    compensation (4 bytes each) for every output row. Convolutions, norms, biases and positions
    stay floating.
    """
    weight_bytes, float_bytes = COMPUTE_TYPES[compute_type]
    total = 0
    for kind, sizes in header.bytes_by_kind.items():
        for dtype, stored in sizes.items():
            values = stored // STORED_BYTES[dtype]
            if kind in ("linear", "embedding"):
                total += values * weight_bytes
            elif kind != "scale":
                total += values * float_bytes if dtype in ("F32", "F16", "BF16") else stored
    if weight_bytes == 1:
        total += 8 * (_fact(header, "linear_rows") + _fact(header, "embedding_rows"))
    return total


def _conversion(
    header: WeightsHeader, model: _Whisper, compute_type: str, weights: Term, tokenizer: float
) -> Term:
    """What loading takes beyond that what stays.

    The whole file is read, then weight after weight is converted, through float32 where it is
    quantized. The embeddings are the largest; whose turn came before them is in the header (for
    the builds of Linux; in the bound, none). The tokenizer comes after all that.
    """
    weight_bytes, float_bytes = COMPUTE_TYPES[compute_type]
    embeddings = header.bytes_by_kind["embedding"]
    stored_dtype = max(embeddings, key=lambda dtype: embeddings[dtype])
    stored_bytes = STORED_BYTES[stored_dtype]
    extra = shrunk = 0
    if stored_dtype != _WEIGHT_DTYPES.get(compute_type, "I8"):
        live_bytes = weight_bytes + (4 if compute_type.startswith("int") else 0)
        extra = embeddings[stored_dtype] // stored_bytes * live_bytes
        shrunk = _fact(header, "quantized_first") * (stored_bytes - weight_bytes)
        shrunk += _fact(header, "cast_first") * (stored_bytes - float_bytes)
    first = header.weights_bytes + extra
    most = first + _LOADER_BYTES + _hole_bytes(model, compute_type) - min(0, shrunk)
    median = max(most - max(0, shrunk), header.weights_bytes)
    kept = weights.size_bytes + tokenizer
    return Term(
        name="conversion",
        size_bytes=round(max(0, median - kept)),
        upper_bytes=round(max(0, 1.03 * most - kept)),
        provenance=f"{header.weights_bytes} stored bytes and their conversion to {compute_type}",
    )


def _hole_bytes(model: _Whisper, compute_type: str) -> int:
    """The hole in the heap that a weight leaves that was quantized through float32."""
    hole = 4 * model.n_ffn * model.n_state
    return hole if COMPUTE_TYPES[compute_type][0] == 1 and hole < _HEAP_BLOCK_BYTES else 0


def _running_phases(model: _Whisper, size: RequestSize, hole_bytes: int) -> tuple[Phase, ...]:
    seconds = size.audio_seconds or _WINDOW_SECONDS
    recording = seconds * _SAMPLES_PER_SECOND * 4
    mels = (seconds + _WINDOW_SECONDS) * _FRAMES_PER_SECOND * model.n_mels * 4
    common = [
        about("recording", recording, 0.05, "16 kHz float32"),
        about("heap", hole_bytes, 0.2, "a hole that converting the weights left"),
    ]
    finding = []
    if size.vad:
        common.append(about("vad", _VAD_BYTES, 0.15, "measured: onnxruntime and Silero"))
        live = _VAD_COPIES * recording
        live += _VAD_BYTES_PER_SECOND * min(seconds, _VAD_BLOCK_SECONDS)
        finding = [about("activations", live, 0.1, "measured: 0.24 MiB a second of 320 s")]
    common_features = [*common, about("features", mels, 0.05, f"{model.n_mels} log-Mel bands")]
    runtime = about("runtime", _RUNTIME_BYTES, 0.3, "measured: threads, kernels, buffers")
    hidden = model.hidden_bytes * size.batch
    scores = exact("scores", model.scores_bytes * size.batch, "heads x positions²")
    encoding = about("activations", _ENCODER_TENSORS * hidden, 0.15, "11 x positions x width")
    decoding = _decoding(model, size, seconds)
    if size.words:
        decoding = max(decoding, _aligning(model, size, seconds), key=_size)
    # freed blocks of the last window's decoding are still there when the next one is encoded
    later = decoding if seconds > _WINDOW_SECONDS or size.words else [encoding]
    encode = [scores, *max([encoding], later, key=_size)]
    phases = [
        Phase(name="features", terms=(*common, _spectrum(seconds, model))),
        Phase(name="encode", terms=(*common_features, runtime, *encode)),
        Phase(name="decode", terms=(*common_features, runtime, *decoding)),
        Phase(
            name="fallback",
            terms=(*common_features, runtime, *_sampling(model, size, seconds)),
            is_rare=True,
        ),
    ]
    if finding:
        phases.insert(0, Phase(name="find_speech", terms=(*common, *finding)))
    return tuple(phases)


def _spectrum(seconds: float, model: _Whisper) -> Term:
    """Spectrum of at most a minute at once: windows and their transform in double precision."""
    frames = min(seconds, 60.0) * _FRAMES_PER_SECOND
    live = frames * (400 * 4 + 201 * 16 + 201 * 8 + 3 * model.n_mels * 4)
    return about("activations", live, 0.3, "short-time Fourier transform, a minute at once")


def _decoding(model: _Whisper, size: RequestSize, seconds: float) -> list[Term]:
    prompt = size.prompt_tokens or _PROMPT_TOKENS
    tokens = prompt + round(_TOKENS_PER_SECOND * min(seconds, _WINDOW_SECONDS))
    most = min(model.n_text_ctx, prompt + _MOST_NEW_TOKENS)
    sequences = size.beams * size.batch
    fallback = max(size.beams, _FALLBACK_TEXTS) * size.batch
    cache = Term(
        name="kv_cache",
        size_bytes=model.kv_cache_bytes(tokens, sequences),
        upper_bytes=model.kv_cache_bytes(most, fallback),
        provenance=f"{sequences} x {tokens} tokens; at most {fallback} x {most}",
    )
    hidden = model.hidden_bytes * size.batch
    logits = 2 * sequences * model.n_vocab * model.value_bytes
    return [
        exact("encoded", hidden, "positions x width"),
        exact("cross_kv_cache", model.cross_kv_cache_bytes(size.batch), "2 x layers x positions"),
        cache,
        about("logits", logits, fallback / sequences - 1, "beams x vocabulary, and their softmax"),
        about("activations", _DECODER_TENSORS * hidden, 0.5, "4.5 x positions x width"),
    ]


def _sampling(model: _Whisper, size: RequestSize, seconds: float) -> list[Term]:
    """Decoding again where the first text looks wrong: music, noise, repetition.

    Sampling does not share the encoder's keys and values as beams do: each of the five texts
    gets a copy. Clear speech never needs it, so it is in the bound and not in the median.
    """
    copies = _FALLBACK_TEXTS * size.batch
    found = []
    for term in _decoding(model, size, seconds):
        if term.name == "cross_kv_cache":
            upper = model.cross_kv_cache_bytes(copies)
            note = f"{term.provenance}; {copies} copies where texts are sampled"
            found.append(term.model_copy(update={"upper_bytes": upper, "provenance": note}))
        else:
            found.append(term)
    return found


def _aligning(model: _Whisper, size: RequestSize, seconds: float) -> list[Term]:
    """The whole text at once: logits of every token, and attention over the window."""
    tokens = _PROMPT_TOKENS + round(_TOKENS_PER_SECOND * min(seconds, _WINDOW_SECONDS))
    most = _PROMPT_TOKENS + _MOST_NEW_TOKENS
    logits = 2 * model.n_vocab * model.value_bytes
    attention = 3 * model.n_head * model.n_audio_ctx * model.value_bytes
    hidden = model.hidden_bytes * size.batch
    return [
        exact("encoded", hidden, "positions x width"),
        exact("cross_kv_cache", model.cross_kv_cache_bytes(size.batch), "2 x layers x positions"),
        about("logits", tokens * logits, most / tokens - 1, "tokens x vocabulary, and softmax"),
        about("activations", tokens * attention, most / tokens - 1, "3 x heads x tokens x window"),
    ]


def _size(terms: list[Term]) -> int:
    return sum(term.size_bytes for term in terms)


def _on_gpu(term: Term) -> Term:
    """The allocator there rounds blocks up, to four times at worst, and keeps 200 MB of them."""
    upper = max(term.upper_bytes, round(1.5 * term.size_bytes))
    note = f"{term.provenance}; not measured on a GPU"
    return term.model_copy(update={"upper_bytes": upper, "provenance": note})


def _model(header: WeightsHeader, value_bytes: int) -> _Whisper:
    names = [name for name in _Whisper.__dataclass_fields__ if name != "value_bytes"]
    sizes: dict[str, Any] = {name: _fact(header, name) for name in names}
    return _Whisper(**sizes, value_bytes=value_bytes)


def _fact(header: WeightsHeader, name: str) -> int:
    value = header.facts[name]
    assert isinstance(value, int), name
    return value


def _unknown(header: WeightsHeader, family: str, machine: Machine) -> Estimate:
    context = about("context", machine.context_bytes["ctranslate2"], 0.1, machine.name)
    weights = about("weights", 2 * header.weights_bytes, 1.0, "not a Whisper, or a new type")
    phase = Phase(name="run", terms=(about("activations", header.weights_bytes, 1.0, "guess"),))
    return Estimate(family=family, resident=(context, weights), phases=(phase,), is_known=False)
