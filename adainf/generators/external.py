"""External generators: fitted elsewhere, run as a program or function that gives images by index.

The contract is in docs/generators-external.md. What comes back is checked, as it is somebody else's.
"""

from __future__ import annotations

import hashlib
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from adainf.errors import BadInput, StageFailed
from adainf.generators.program import run_program
from adainf.pipeline.artifacts import Record
from adainf.recipe import External
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import Pixels
from adainf.sources.channels import CHECKED_IMAGES, order_contradiction


class GeneratorManifest(Record):
    """CHECKPOINT.json: what its makers say of a checkpoint; the run's ``generator/`` keeps it."""

    schema_version: Literal[1] = 1
    kind: Literal["external"] = "external"
    name: str
    """Of the model, for the report."""
    trained_on: str
    """SHA-256 of the ``real/manifest.json`` whose training split it was fitted on; of other images any name."""
    used_labels: bool
    """Whether labels were used in fitting, sampling or filtering."""
    image_size_px: Annotated[int, Field(ge=1)]
    """Height and width of its images."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Order in which its program gives them."""

    def foreign(self, real_digest: str) -> list[str]:
        """The fields by which it breaks the method's rule: fitted on the run's own real images only, and without labels."""
        return [
            *(["trained_on"] if self.trained_on != real_digest else []),
            *(["used_labels"] if self.used_labels else []),
        ]


def check_checkpoint(config: External) -> None:
    """Raise `BadInput` where the checkpoint is missing, or is not the file that the recipe names by its SHA-256."""
    try:
        with Path(config.checkpoint).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{config.checkpoint}: {error.strerror}; set generator.checkpoint to the file") from None
    if digest != config.sha256:
        raise BadInput(
            f"{config.checkpoint} has SHA-256 {digest}, not {config.sha256} as generator.sha256 says: bring the file that is "
            "meant, or set generator.sha256 to that of this one"
        )


def manifest_path(config: External) -> Path:
    return Path(f"{config.checkpoint}.json")


def read_manifest(config: External) -> GeneratorManifest:
    """What lies beside the checkpoint. Raises `BadInput`."""
    path = manifest_path(config)
    try:
        return GeneratorManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; docs/generators-external.md says what belongs there") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"{path}: {where}: {first['msg']}; docs/generators-external.md says what belongs there") from None


class ExternalGenerator:
    """A `DrawBatch`. All that it gives is checked; its first batch also for what its shape cannot show."""

    def __init__(self, config: External, described: GeneratorManifest, real: ShardSet, seed: int) -> None:
        self._config, self._described, self._real, self._seed = config, described, real, seed
        self._ask = _import(config.callable) if config.callable else None
        self._last: tuple[range, Pixels] | None = None

    def __call__(self, indices: range) -> Pixels:
        """n x H x W x 3 uint8 RGB. Raises `BadInput` for images that cannot be used, `StageFailed` where there are none."""
        if self._last is None or self._last[0] != indices:
            images = self._called(indices) if self._ask else self._run(indices)
            if self._described.channel_order == "BGR":
                images = images[..., ::-1]
            if self._last is None:
                self._check_first(images)
            self._last = indices, np.ascontiguousarray(images)
        return self._last[1]

    def _called(self, indices: range) -> Pixels:
        assert self._ask is not None
        try:
            images = self._ask(Path(self._config.checkpoint), indices, self._seed)
        except Exception as error:
            raise StageFailed(
                f"generate: generator.callable {self._config.callable} failed ({type(error).__name__}: {error}); see what it "
                "does by hand"
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
                images = np.load(output, mmap_mode="r", allow_pickle=False)  # mapped: its shape is judged before it is read
            except (OSError, ValueError, EOFError) as error:
                raise BadInput(f"generator.command left no .npy of numbers at {{output}} ({error}); mend it") from None
            return np.array(self._checked(images, indices))

    def _checked(self, images: Any, indices: range) -> Pixels:
        """`images`, if they are as many as were asked for, uint8, and of the size of the real ones."""
        who = "generator.callable" if self._ask else "generator.command"
        if not isinstance(images, np.ndarray):
            raise BadInput(f"{who} gave {type(images).__name__} where a numpy array is expected; mend it")
        wanted = (len(indices), *self._real.image_size, 3)
        if images.dtype != np.uint8 or images.shape != wanted:
            raise BadInput(
                f"{who} gave {images.dtype} of shape {images.shape} for images {indices.start} to {indices.stop - 1}, where "
                f"uint8 of shape {wanted} is expected (images, height, width, RGB); mend it"
            )
        return images

    def _check_first(self, images: Pixels) -> None:
        if len(images) > 1 and (images == images[0]).all():
            raise BadInput("the external generator gave the same image for every index; let image i depend on i")
        contradiction = order_contradiction(images[:CHECKED_IMAGES], self._real.splits["train"])
        if contradiction:
            declared = self._described.channel_order
            other = "BGR" if declared == "RGB" else "RGB"
            raise BadInput(
                f"images of the external generator, read as {declared}: {contradiction}; let it give the order it says, or "
                f"set channel_order: {other} in {manifest_path(self._config)}, delete generator/ of the run, and run fit again"
            )


def _import(name: str) -> Callable[[Path, range, int], Any]:
    module, _, function = name.partition(":")
    try:
        found: Callable[[Path, range, int], Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"generator.callable {name} cannot be imported ({error}); mend it, or set PYTHONPATH") from None
    return found
