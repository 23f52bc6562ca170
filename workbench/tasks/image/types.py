"""What a drawing gives back."""

from __future__ import annotations

import base64
import html
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import UserInputError
from workbench.tasks.image.metadata import encode
from workbench.tasks.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

#: Smaller pictures are shown enlarged in a notebook, pixel by pixel.
_SHOWN_PX = 128


@dataclass(frozen=True)
class Pictures:
    """Pictures of one prompt, and the recipe that makes them again.

    ``images[i]`` was drawn with ``seeds[i]``. ``seconds`` is the drawing of all of them, without
    loading the model. ``files`` is what the last `save` wrote.
    """

    images: tuple[Image, ...]
    seeds: tuple[int, ...]
    recipe: dict[str, Any]
    seconds: float
    record: Record
    _files: list[Path] = field(default_factory=list, repr=False, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the pictures are saved; empty before `save`."""
        return tuple(self._files)

    def save(self, path: str | Path, *, metadata: bool = True) -> list[Path]:
        """Write the pictures and return their paths, in the order of ``images``.

        The suffix chooses the format: .png, .jpg, .jpeg or .webp. Several pictures become
        ``name-0.png``, ``name-1.png`` ...; in a folder they are called by their seeds
        (``seed-7.png``). A file of that name is overwritten. Each file carries the recipe of its
        own picture unless ``metadata`` is False. A file is whole or it is not there.

        Raises UnknownOption for another suffix, UserInputError where nothing can be written.
        """
        path = Path(path).expanduser()
        if path.is_dir():
            targets = [path / f"seed-{seed}.png" for seed in self.seeds]
        elif len(self.images) == 1:
            targets = [path]
        else:
            targets = [
                path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(len(self.images))
            ]
        contents = [
            encode(image, target.suffix, self.recipe_of(i) if metadata else None)
            for i, (image, target) in enumerate(zip(self.images, targets, strict=True))
        ]
        if not path.parent.is_dir():
            raise UserInputError(f"There is no folder {str(path.parent)!r}.", "Make it first.")
        for target, content in zip(targets, contents, strict=True):
            _write(target, content)
        self._files[:] = targets
        return targets

    def recipe_of(self, index: int) -> dict[str, Any]:
        """The recipe of one picture: that of all, with its seed alone."""
        return {**self.recipe, "seeds": [self.seeds[index]]}

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types; the pictures themselves are in ``files``."""
        return {
            "files": [str(file) for file in self._files],
            "seeds": list(self.seeds),
            "seconds": self.seconds,
            "recipe": self.recipe,
            "quality": dict(self.record.quality),
        }

    def _repr_html_(self) -> str:
        prompt = html.escape(self.recipe["prompt"], quote=True)
        figures = "".join(
            '<figure style="display:inline-block;margin:4px;text-align:center">'
            f'<img alt="{prompt}" title="{prompt}" width="{max(image.width, _SHOWN_PX)}" '
            f'style="image-rendering:{"pixelated" if image.width < _SHOWN_PX else "auto"}" '
            f'src="data:image/png;base64,{_base64_png(image)}">'
            f"<figcaption>seed {seed}</figcaption></figure>"
            for image, seed in zip(self.images, self.seeds, strict=True)
        )
        return f"<div>{figures}<p>{prompt} ({self.seconds:.2f} s)</p></div>"


def _base64_png(image: Image) -> str:
    return base64.b64encode(encode(image, ".png", None)).decode("ascii")


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise UserInputError(
            f"{str(path)!r} cannot be written: {error.strerror}.", "Choose another place."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
