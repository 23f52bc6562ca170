"""Images: from a text to pictures that carry the recipe they were made by."""

from workbench.engines.base import ImageStep
from workbench.engines.samplers import SAMPLERS
from workbench.tasks.image.metadata import read_recipe
from workbench.tasks.image.run import draw
from workbench.tasks.image.types import Pictures

__all__ = ["SAMPLERS", "ImageStep", "Pictures", "draw", "read_recipe"]
