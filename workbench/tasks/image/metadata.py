"""How a picture was made, written into its file and read back.

A file carries two texts: ``parameters``, which AUTOMATIC1111's web UI and the tools around it
read, and ``recipe``, JSON that is complete. In PNG they are text chunks; in JPEG and WebP they
are the EXIF fields UserComment (where the web UI puts it) and ImageDescription.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InvalidMedia, UnknownOption

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

RECIPE_VERSION = 1

#: Pillow's format and options for each suffix. WebP is lossless; JPEG loses as little as it can.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}

_EXIF_FOLDER = 0x8769
_USER_COMMENT = 0x9286
_IMAGE_DESCRIPTION = 0x010E
# EXIF 2.32, table 9: the first eight bytes of a UserComment name its encoding
_UNICODE = b"UNICODE\x00"


def encode(image: Image, suffix: str, recipe: dict[str, Any] | None) -> bytes:
    """The bytes of a picture file, with ``recipe`` in it unless that is None.

    Raises UnknownOption for a suffix that is not in `FORMATS`.
    """
    known = FORMATS.get(suffix.lower())
    if known is None:
        raise UnknownOption(
            f"Pictures cannot be written as {suffix or 'a file without a suffix'}.",
            f"End the name with {', '.join(FORMATS)}.",
        )
    form, options = known
    if recipe is not None:
        options = {**options, **_carriers(form, parameters(recipe), recipe)}
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def parameters(recipe: dict[str, Any]) -> str:
    """The text that the web UI shows as "PNG info", for the first seed of ``recipe``.

    Source: ``create_infotext`` of AUTOMATIC1111/stable-diffusion-webui, modules/processing.py.
    """
    lines = [recipe["prompt"]]
    if recipe["negative_prompt"]:
        lines.append(f"Negative prompt: {recipe['negative_prompt']}")
    model = recipe["model"]
    fields = {
        "Steps": recipe["steps"],
        "Sampler": recipe["sampler"],
        "CFG scale": recipe["guidance_scale"],
        "Seed": recipe["seeds"][0],
        "Size": recipe["size"],
        "Model hash": model["sha256"] and model["sha256"][:10],
        "Model": model["id"],
        "Version": f"workbench {recipe['libraries']['workbench']}",
    }
    lines.append(", ".join(f"{k}: {_quoted(v)}" for k, v in fields.items() if v is not None))
    return "\n".join(lines)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe in a picture file that `Pictures.save` wrote.

    Raises InvalidMedia for a file that is no picture or that carries no recipe.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(Path(path).expanduser()) as image:
            text = image.info.get("recipe") or image.getexif().get(_IMAGE_DESCRIPTION)
    except FileNotFoundError:
        raise InvalidMedia(f"There is no file {str(path)!r}.", "Check the path.") from None
    except UnidentifiedImageError:
        raise InvalidMedia(f"{str(path)!r} is not a picture.", "Give a picture file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidMedia(f"{str(path)!r} cannot be read: {error}.", "Check the file.") from None
    try:
        recipe = json.loads(text or "")
    except (TypeError, ValueError):
        recipe = None
    if not isinstance(recipe, dict) or "version" not in recipe:
        raise InvalidMedia(
            f"{str(path)!r} carries no recipe.",
            "Pictures keep it where they are saved by the workbench and not edited afterwards.",
        )
    if recipe["version"] != RECIPE_VERSION:
        raise InvalidMedia(
            f"The recipe in {str(path)!r} has version {recipe['version']!r}.",
            f"This workbench reads version {RECIPE_VERSION}; use the one that wrote it.",
        )
    return recipe


def _carriers(form: str, text: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """The save options of Pillow that carry both texts."""
    if form == "PNG":
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        # Pillow writes tEXt where Latin-1 suffices and iTXt (UTF-8) where it does not
        chunks.add_text("parameters", text)
        chunks.add_text("recipe", json.dumps(recipe, ensure_ascii=False))
        return {"pnginfo": chunks}
    return {"exif": _exif(text, recipe)}


def _exif(text: str, recipe: dict[str, Any]) -> Exif:
    from PIL import Image

    exif = Image.Exif()
    # UTF-16 big endian: what piexif, through which the web UI reads, takes for "UNICODE"
    exif.get_ifd(_EXIF_FOLDER)[_USER_COMMENT] = _UNICODE + text.encode("utf_16_be")
    exif[_IMAGE_DESCRIPTION] = json.dumps(recipe)  # ASCII only, as EXIF demands
    return exif


def _quoted(value: object) -> str:
    """A value as the web UI writes it: quoted where it has a sign that separates fields."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",:\n") else text
