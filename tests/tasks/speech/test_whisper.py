"""The whole way, from a file of the project to a scored transcript, on the starter models."""

from __future__ import annotations

import json
from typing import Any

import pytest

import workbench as wb
from workbench.errors import UnknownOption
from workbench.project import project_root

pytestmark = pytest.mark.models

FOLDER = project_root() / "data" / "speech"


def _entries() -> list[dict[str, Any]]:
    manifest = (FOLDER / "manifest.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in manifest.splitlines()]


def test_english_speech_with_words():
    entry = next(e for e in _entries() if e["file"] == "en_synthetic_question.flac")
    transcript = wb.transcribe(FOLDER / entry["file"], words=True, reference=entry["text"])
    assert transcript.language == "en"
    assert transcript.record.quality["wer"] <= 0.2
    words = [word for segment in transcript.segments for word in segment.words]
    assert "".join(word.text for word in words).split() == transcript.text.split()
    assert all(0 <= word.probability <= 1 for word in words)


def test_vietnamese_keeps_its_marks_in_every_file(tmp_path):
    entry = next(e for e in _entries() if e["language"] == "vi")
    transcript = wb.transcribe(FOLDER / entry["file"], language="vi")
    assert not transcript.text.isascii()
    for suffix in ("txt", "srt", "vtt", "tsv", "json"):
        saved = transcript.save(tmp_path / f"lời.{suffix}").read_text(encoding="utf-8")
        assert transcript.segments[0].text.split()[0] in saved


def test_silence_gives_no_words():
    entry = next(e for e in _entries() if e["kind"] == "silence")
    transcript = wb.transcribe(FOLDER / entry["file"], reference=entry["text"])
    assert transcript.segments == ()
    assert transcript.record.quality == {"hallucinated_words_per_minute": 0.0}


def test_an_unknown_compute_type_names_the_right_ones():
    with pytest.raises(UnknownOption, match="int8"):
        wb.transcribe(FOLDER / "silence.flac", compute_type="int3")
