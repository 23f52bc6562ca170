from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tasks.speech.transcripts import make_transcript
from workbench.engines.base import Segment, Word
from workbench.errors import UnknownOption, UserInputError
from workbench.tasks.speech.formats import FORMATS, clock
from workbench.tasks.speech.subtitles import LINE_CHARACTERS, MAX_SECONDS, cues

VIETNAMESE = "Xin chào các bạn, đây là phần mềm chép lời tiếng Việt của chúng tôi."
CHINESE = (
    "数据、模型、测试和终结点等内容组织到自定义语音门户中的项目中。每个项目都是特定于域和国家的。"
)
THAI = "สวัสดีครับ วันนี้เราจะมาเรียนภาษาไทยกันนะครับเพราะว่าเป็นภาษาที่สวยงามมาก"

TIME = re.compile(r"(\d\d+):(\d\d):(\d\d)[.,](\d\d\d) --> (\d\d+):(\d\d):(\d\d)[.,](\d\d\d)")


def parse(text: str, unescape: bool) -> list[tuple[int, int, list[str]]]:
    """(start ms, end ms, lines) of every cue of an SRT or VTT, read as a player reads it."""
    found = []
    for block in re.split(r"\n\n+", text.strip("\n")):
        lines = block.split("\n")
        at = next((i for i, line in enumerate(lines[:2]) if TIME.fullmatch(line)), None)
        if at is None:
            assert block in ("WEBVTT", "")
            continue
        match = TIME.fullmatch(lines[at])
        assert match is not None
        hours, minutes, seconds, ms, *end = map(int, match.groups())
        start_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms
        end_ms = ((end[0] * 60 + end[1]) * 60 + end[2]) * 1000 + end[3]
        said = lines[at + 1 :]
        if unescape:
            said = [
                line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
                for line in said
            ]
        found.append((start_ms, end_ms, said))
    return found


def width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


TEXTS = st.one_of(
    st.text(alphabet="abcđấễ ươ.,!?-'<>&\u00a0\t\n0123456789", max_size=300),
    st.text(alphabet="数据模型 。、（）กขคเแ่้ゃっー日本語xyz", max_size=120),
    st.text(max_size=60),
)


@st.composite
def spoken_segments(draw: st.DrawFn) -> list[Segment]:
    """Segments in order, some with words; times may touch, be empty, or long."""
    at = draw(st.floats(0, 5000, allow_nan=False))
    segments = []
    for text in draw(st.lists(TEXTS, max_size=5)):
        start = at + draw(st.floats(0, 5))
        at = start + draw(st.floats(0, 40))
        words: list[Word] = []
        if draw(st.booleans()):
            tokens = re.findall(r"\s*\S+", text)
            step = (at - start) / max(1, len(tokens))
            words = [
                Word(start + i * step, start + (i + 1) * step, token, 0.5)
                for i, token in enumerate(tokens)
            ]
        segments.append(Segment(start, at, text.strip(), words=tuple(words)))
    return segments


@pytest.mark.parametrize("form", ["srt", "vtt"])
@settings(deadline=None)  # a busy machine is no failure
@given(segments=spoken_segments())
def test_subtitles_keep_every_word_and_all_rules(form: str, segments: list[Segment]):
    found = parse(make_transcript(segments).to_format(form), unescape=form == "vtt")

    # nothing lost, nothing invented, in order
    written = "".join("".join(line for line in lines) for _, _, lines in found)
    spoken = "".join(segment.text for segment in segments)
    assert "".join(written.split()) == "".join(spoken.split())
    ends_ms = 0
    for start_ms, end_ms, lines in found:
        assert ends_ms <= start_ms < end_ms
        assert end_ms - start_ms <= MAX_SECONDS * 1000
        assert 1 <= len(lines) <= 2
        for line in lines:
            assert line.strip() == line != ""
            assert width(line) <= LINE_CHARACTERS or " " not in line
        ends_ms = end_ms


@settings(deadline=None)  # a busy machine is no failure
@given(words=st.lists(st.text(alphabet="abcđấễươ.,!?<>&'", min_size=1, max_size=12), max_size=80))
def test_spaced_words_come_back_as_the_same_words(words: list[str]):
    segment = Segment(0.0, max(0.1, 0.4 * len(words)), " ".join(words))
    made = cues([segment])
    assert [word for cue in made for line in cue.lines for word in line.split()] == words


def test_a_fitting_segment_is_one_cue_with_its_own_times():
    (cue,) = cues([Segment(61.2346, 64.5, VIETNAMESE)])
    assert (cue.start_ms, cue.end_ms) == (61235, 64500)
    assert cue.lines == ("Xin chào các bạn, đây là phần mềm", "chép lời tiếng Việt của chúng tôi.")


def test_long_segments_are_cut_into_like_parts_at_word_times():
    text = (
        "And so my fellow Americans, ask not what your country can do for you, "
        "ask what you can do for your country."
    )
    tokens = re.findall(r"\s*\S+", text)
    words = tuple(Word(i * 0.5, i * 0.5 + 0.4, token, 0.9) for i, token in enumerate(tokens))
    made = cues([Segment(0.0, 11.0, text, words=words)])
    assert len(made) == 2
    starts_ms = {round(word.start_seconds * 1000) for word in words}
    assert {cue.start_ms for cue in made} <= starts_ms
    sizes = [sum(map(len, cue.lines)) for cue in made]
    assert min(sizes) > 0.6 * max(sizes)


def test_a_pause_between_words_parts_the_cues():
    words = (Word(1.0, 1.5, " One", 0.9), Word(4.0, 4.5, " two", 0.9))
    made = cues([Segment(1.0, 4.5, "One two", words=words)])
    assert [(cue.start_ms, cue.end_ms) for cue in made] == [(1000, 1500), (4000, 4500)]


def test_pieces_of_a_word_stay_together():
    words = (Word(0, 1, " well", 0.9), Word(1, 2, "-known", 0.9), Word(2, 3, " man", 0.9))
    (cue,) = cues([Segment(0, 3, "well-known man", words=words)])
    assert cue.lines == ("well-known man",)


def test_an_edited_text_wins_over_its_words():
    words = (Word(0, 1, " wrong", 0.9),)
    (cue,) = cues([Segment(0, 1, "right", words=words)])
    assert cue.lines == ("right",)


def test_two_words_in_half_a_minute_are_shown_when_they_are_said():
    (cue,) = cues([Segment(10, 40, "Hello there")])
    assert (cue.start_ms, cue.end_ms) == (10_000, 15_500)


@pytest.mark.parametrize("text", [CHINESE, THAI])
def test_scripts_without_spaces_are_cut_too(text: str):
    made = cues([Segment(0, 20, text * 2)])
    lines = [line for cue in made for line in cue.lines]
    assert all(width(line) <= LINE_CHARACTERS for line in lines)
    # closing marks and vowel signs never begin a line
    assert not any(unicodedata.category(line[0]) in ("Po", "Pe", "Mn") for line in lines)
    assert not any(line[-1] in "เแโใไ" for line in lines)


def test_every_format_of_one_transcript():
    transcript = make_transcript(
        [Segment(0.0, 1.5, "Chào <b>bạn</b> & tôi"), Segment(3601.0, 3602.0, "a\tb")]
    )
    assert transcript.to_txt() == "Chào <b>bạn</b> & tôi\na b\n"
    assert transcript.to_srt() == (
        "1\n00:00:00,000 --> 00:00:01,500\nChào <b>bạn</b> & tôi\n\n"
        "2\n01:00:01,000 --> 01:00:02,000\na b\n"
    )
    assert transcript.to_vtt() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n"
        "Chào &lt;b&gt;bạn&lt;/b&gt; &amp; tôi\n\n"
        "01:00:01.000 --> 01:00:02.000\na b\n"
    )
    assert transcript.to_tsv() == (
        "start\tend\ttext\n0\t1500\tChào <b>bạn</b> & tôi\n3601000\t3602000\ta b\n"
    )
    assert json.loads(transcript.to_json()) == transcript.to_dict()
    assert "bạn" in transcript.to_json()


def test_nothing_said_is_a_valid_file_in_every_format():
    written = {name: make_transcript([]).to_format(name) for name in FORMATS}
    assert (written["txt"], written["srt"], written["vtt"]) == ("", "", "WEBVTT\n")
    assert written["tsv"] == "start\tend\ttext\n"
    assert json.loads(written["json"])["segments"] == []


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0, "00:00:00.000"), (59_999, "00:00:59.999"), (3_600_000, "01:00:00.000"),
     (360_000_007, "100:00:00.007")],
)  # fmt: skip
def test_clock(milliseconds: int, shown: str):
    assert clock(milliseconds) == shown


@pytest.mark.parametrize("name", FORMATS)
def test_saving_writes_the_format_of_the_suffix(name: str, tmp_path: Path):
    transcript = make_transcript([Segment(0, 1, VIETNAMESE)])
    path = transcript.save(tmp_path / "new folder" / f"lời.{name.upper()}")
    assert path.read_bytes().decode("utf-8") == transcript.to_format(name)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["talk.doc", "talk", "talk."])
def test_an_unknown_suffix_is_refused_before_anything_is_written(name: str, tmp_path: Path):
    with pytest.raises(UnknownOption, match="txt, .?srt"):
        make_transcript([]).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_transcript([Segment(0, 1, "old")]).save(tmp_path / "a.txt")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserInputError, match="No space left"):
        make_transcript([Segment(0, 1, "new")]).save(path)
    assert path.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserInputError, match="cannot be written"):
        make_transcript([]).save(tmp_path / "file" / "a.txt")


def test_the_notebook_view_is_escaped():
    page = make_transcript([Segment(0, 1.25, "<script>1</script> ổn")])._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;1&lt;/script&gt; ổn" in page
    assert "00:00:01.250" in page
