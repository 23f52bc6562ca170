"""The Gradio app: `app.py` and one file per tab. Imports workbench; nothing imports it."""
