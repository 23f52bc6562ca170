"""Makes a model's Markdown harmless: no HTML, and no picture that a browser would fetch.

A zero-width space after ``<`` and ``!`` keeps them text and looks the same in prose and in inline
code. Fenced code is left as it is, so that a copy of it runs, but only where it is certain that
the browser sees the same fence: at the left margin. The page's content security policy and
Gradio's sanitiser stand behind this.
"""

from __future__ import annotations

import re

#: Markdown's lines; `str.splitlines` knows more ends of line than Markdown does.
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+\Z")
_FENCE = re.compile(r"(`{3,})[^`]*")
#: A fence inside a list or quote, or one of tildes: where it ends depends on what is around it.
_UNSURE = re.compile(r"(?:^|\r)[ \t>*+\-\d.)]+(?:`{3}|~{3})|(?:^|\r)~{3}", re.MULTILINE)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_GAP = "\u200b"


def harmless(text: str) -> str:
    """``text`` with HTML shown as text and pictures as links, outside of fenced code."""
    trust_fences = _UNSURE.search(text) is None
    lines = []
    fence = ""  # what the current code block was opened with
    for line in _LINE.findall(text):
        bare = line.rstrip(" \t\r\n")
        if fence:
            lines.append(line)
            if bare.startswith(fence) and not bare.strip("`"):
                fence = ""
            continue
        opened = _FENCE.fullmatch(bare) if trust_fences else None
        if opened:
            fence = opened[1]
        lines.append(_escape(line))
    return "".join(lines)


def _escape(text: str) -> str:
    return _TAG.sub("<" + _GAP, text).replace("![", f"!{_GAP}[")
