"""External generators: fitted elsewhere, called as a program or function that returns images by index.

docs/generators-external.md defines the contract. All output is validated, since the program is not ours.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from adainf.errors import BadInput, StageFailed
from adainf.generators.program import run_program
from adainf.pipeline.records import Record
from adainf.recipe import External
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import Pixels
from adainf.sources.channels import CHECKED_IMAGES, order_contradiction


class GeneratorManifest(Record):
    """CHECKPOINT.json: the declaration of a checkpoint by its authors; ``generator/`` of the run keeps it."""

    schema_version: Literal[1] = 1
    kind: Literal["external"] = "external"
    name: str
    """Name of the model, for the report."""
    trained_on: str
    """SHA-256 of the ``real/manifest.json`` whose training split it was fitted on; for other images any name."""
    used_labels: bool
    """Whether labels were used in fitting, sampling or filtering."""
    image_size_px: Annotated[int, Field(ge=1)]
    """Height and width of its images."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Channel order of its images."""

    def foreign(self, real_digest: str) -> list[str]:
        """The fields that violate the method's rule: fitted only on the real images of this run, without labels."""
        return [
            *(["trained_on"] if self.trained_on != real_digest else []),
            *(["used_labels"] if self.used_labels else []),
        ]


def check_checkpoint(config: External) -> None:
    """Raise `BadInput` where the checkpoint is missing or its SHA-256 differs from the recipe's."""
    try:
        with Path(config.checkpoint).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{config.checkpoint}: {error.strerror}; set generator.checkpoint to the file") from None
    if digest != config.sha256:
        raise BadInput(
            f"{config.checkpoint} has SHA-256 {digest}, but generator.sha256 is {config.sha256}: use the intended file, or set "
            "generator.sha256 to the digest of this one"
        )


def manifest_path(config: External) -> Path:
    return Path(f"{config.checkpoint}.json")


def read_manifest(config: External) -> GeneratorManifest:
    """The manifest beside the checkpoint. Raises `BadInput` where it is missing or invalid."""
    path = manifest_path(config)
    try:
        return GeneratorManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; write it as docs/generators-external.md describes") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{path}: {where}: {first['msg']}; correct it as docs/generators-external.md describes") from None


class ExternalGenerator:
    """A `DrawBatch` that validates every batch; the first one also for identical images and channel order."""

    def __init__(self, config: External, described: GeneratorManifest, real: ShardSet, seed: int) -> None:
        self._config, self._described, self._real, self._seed = config, described, real, seed
        self._function = _import(config.callable) if config.callable else None
        self._last: tuple[range, Pixels] | None = None

    def __call__(self, indices: range) -> Pixels:
        """n x H x W x 3 uint8 RGB. Raises `BadInput` for unusable images, `StageFailed` where the program fails."""
        if self._last is None or self._last[0] != indices:
            images = self._call(indices) if self._function else self._run(indices)
            if self._described.channel_order == "BGR":
                images = images[..., ::-1]
            if self._last is None:
                self._check_first(images)
            self._last = indices, np.ascontiguousarray(images)
        return self._last[1]

    def _call(self, indices: range) -> Pixels:
        assert self._function is not None
        try:
            images = self._function(Path(self._config.checkpoint), indices, self._seed)
        except Exception as error:
            raise StageFailed(
                f"generate: generator.callable {self._config.callable} failed ({type(error).__name__}: {error}); call it by "
                "hand to debug it"
            ) from error
        return self._checked(images, indices)

    def _run(self, indices: range) -> Pixels:
        with tempfile.TemporaryDirectory(prefix="adainf-") as folder:
            output = Path(folder) / "images.npy"
            given = {
                "{checkpoint}": self._config.checkpoint,
                "{first}": str(indices.start),
                "{count}": str(len(indices)),
                "{seed}": str(self._seed),
                "{output}": str(output),
            }
            words = list(self._config.command or ())
            for placeholder, value in given.items():
                words = [word.replace(placeholder, value) for word in words]
            run_program(words, self._config.time_limit_s)
            try:
                images = np.load(
                    output, mmap_mode="r", allow_pickle=False
                )  # mapped: the shape is checked before the data are read
            except (OSError, ValueError, EOFError) as error:
                raise BadInput(f"generator.command wrote no numeric .npy to {{output}} ({error}); fix the program") from None
            return np.array(self._checked(images, indices))

    def _checked(self, images: Any, indices: range) -> Pixels:
        """`images`, where they are a uint8 array of the requested number and of the size of the real images."""
        program = "generator.callable" if self._function else "generator.command"
        if not isinstance(images, np.ndarray):
            raise BadInput(f"{program} returned {type(images).__name__}, expected a numpy array; fix the program")
        wanted = (len(indices), *self._real.image_size, 3)
        if images.dtype != np.uint8 or images.shape != wanted:
            raise BadInput(
                f"{program} returned {images.dtype} of shape {images.shape} for images {indices.start} to {indices.stop - 1}, "
                f"expected uint8 of shape {wanted} (images, height, width, RGB); fix the program"
            )
        return images

    def _check_first(self, images: Pixels) -> None:
        if len(images) > 1 and (images == images[0]).all():
            raise BadInput("the external generator returned the same image for every index; make image i depend on i")
        contradiction = order_contradiction(images[:CHECKED_IMAGES], self._real.splits["train"])
        if contradiction:
            declared = self._described.channel_order
            other = "BGR" if declared == "RGB" else "RGB"
            raise BadInput(
                f"images of the external generator, read as {declared}: {contradiction}; make it return the declared order, or "
                f"set channel_order: {other} in {manifest_path(self._config)}, delete generator/ of the run, and run fit again"
            )


def _import(name: str) -> Callable[[Path, range, int], Any]:
    try:
        found: Callable[[Path, range, int], Any] = resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"generator.callable {name} cannot be imported ({error}); fix the name, or set PYTHONPATH") from None
    return found
