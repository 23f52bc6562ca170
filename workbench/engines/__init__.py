"""How a model runs: one file per runtime, a registry of them, and the pool that loads them.

Only the engine files import torch, diffusers, transformers, ctranslate2 or llama.cpp, and only
inside ``load``.
"""
