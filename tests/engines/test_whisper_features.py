from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from workbench.engines import whisper_features
from workbench.engines.whisper_features import BlockFeatures


@pytest.fixture(scope="module")
def peer():
    from faster_whisper.feature_extractor import FeatureExtractor

    return FeatureExtractor()


@pytest.mark.parametrize(
    "length", [1, 159, 160, 5 * 1600, 10 * 1600, 10 * 1600 - 160, 10 * 1600 + 1, 33_333, 48_000]
)
def test_blocks_give_the_features_of_the_whole(length: int, peer, monkeypatch):
    monkeypatch.setattr(whisper_features, "_BLOCK_FRAMES", 50)
    sound = np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)
    sound[length // 2 :] *= 0.01  # the loudest block sets the floor of all
    whole, blocks = peer(sound), BlockFeatures(peer)(sound)
    assert blocks.shape == whole.shape
    assert blocks.dtype == whole.dtype
    assert np.abs(blocks - whole).max() < 1e-5


def test_it_stands_in_for_the_extractor(peer):
    assert BlockFeatures(peer).nb_max_frames == peer.nb_max_frames == 3000


def test_memory_is_the_result_and_one_block(peer, monkeypatch):
    monkeypatch.setattr(whisper_features, "_BLOCK_FRAMES", 500)
    sound = np.zeros(16_000 * 60, np.float32)
    tracemalloc.start()
    try:
        features = BlockFeatures(peer)(sound)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < features.nbytes + 12 * 2**20  # the whole takes 50 MB
