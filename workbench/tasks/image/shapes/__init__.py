"""The shapes world: scenes of coloured shapes that can be drawn, described, parsed and checked.

The starter image model is trained on it, and because every picture can be checked exactly, the
quality of that model (and of anything trained on top of it) is a measured number. numpy only.
"""
