"""How the app looks: fonts of the system, one accent colour, light and dark, narrow and wide."""

from __future__ import annotations

import gradio as gr

HEAD = '<meta name="color-scheme" content="light dark">'


def theme() -> gr.themes.Base:
    """Gradio's base with system fonts, so that none is fetched, and Vietnamese letters exist."""
    return gr.themes.Base(
        primary_hue="blue",
        secondary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        spacing_size="sm",
        font=["system-ui", "Segoe UI", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "Cascadia Mono", "Noto Sans Mono", "monospace"],
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        block_label_text_size="*text_sm",
        block_title_text_size="*text_sm",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
    )


CSS = """
.gradio-container { width: 100%; max-width: 1500px !important; margin: 0 auto !important; }
.gradio-container .main { padding: 12px clamp(8px, 2.5vw, 32px) !important; }
.low { align-items: flex-end; }
#header { align-items: center; gap: 6px 18px; }
#header > * { flex: 0 0 auto; width: auto; }
#header > #memory { flex: 1 1 320px; }
#language .wrap { flex-wrap: nowrap; width: auto; }
#language label { padding: 4px 10px; }
/* an empty status line takes no room */
[id$="-status"]:not(:has(.wb-status)), [id$="-count"]:not(:has(.wb-status)) { display: none; }
.wb-memory-title { font-size: 13px; margin-bottom: 4px; }
.wb-memory-bar { display: flex; height: 10px; border-radius: 5px; overflow: hidden;
  background: var(--neutral-200); }
.dark .wb-memory-bar { background: var(--neutral-700); }
.wb-memory-legend, .wb-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px;
  margin-top: 4px; color: var(--body-text-color-subdued); }
.wb-memory-legend i, .wb-legend i { display: inline-block; width: 9px; height: 9px;
  border-radius: 2px; margin-right: 5px; }
.wb-status { font-size: 14px; padding: 7px 11px; border-radius: 6px; line-height: 1.4;
  background: var(--block-background-fill); border-left: 3px solid var(--neutral-400);
  overflow-wrap: anywhere; white-space: pre-line; }
.wb-done { border-left-color: #16a34a; }
.wb-error { border-left-color: #dc2626; }
.wb-bar { height: 6px; border-radius: 3px; overflow: hidden; margin-top: 6px;
  background: var(--neutral-200); }
.dark .wb-bar { background: var(--neutral-700); }
.wb-bar div { height: 100%; background: var(--primary-500); transition: width 0.15s; }
#sql-schema summary { cursor: pointer; padding: 2px 0; }
#sql-schema ul { margin: 0 0 8px 18px; padding: 0; list-style: none; }
#sql-schema li { padding: 1px 0; line-height: 1.35; }
#sql-schema small, #sql-schema p { font-size: 12px; color: var(--body-text-color-subdued); }
#sql-schema p { margin: 0 0 2px 18px; }
.wb-chart { width: 100%; max-height: 420px; display: block; }
.wb-chart line { stroke: var(--border-color-primary); }
.wb-chart text { fill: var(--body-text-color-subdued); font-size: 11px; }
/* small pictures are pixels, not a blur */
#images-gallery img { image-rendering: pixelated; }
"""
