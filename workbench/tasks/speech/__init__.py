"""Speech: from a recording of any format to text with times."""

from workbench.engines.base import Segment, SpeechInfo, Word
from workbench.tasks.speech.formats import FORMATS
from workbench.tasks.speech.run import transcribe
from workbench.tasks.speech.types import SpeechTimings, Transcript

__all__ = [
    "FORMATS",
    "Segment",
    "SpeechInfo",
    "SpeechTimings",
    "Transcript",
    "Word",
    "transcribe",
]
