"""Builds models with random weights from real configurations, to measure memory with.

A module has functions ``name(folder, **arguments) -> path``; a case names one as ``kind:
module.name``.
"""
