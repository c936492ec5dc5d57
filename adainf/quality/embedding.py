"""A two-dimensional map of real and generated images in one feature space: the object ``quality/map.npz``. Imports no torch."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAP = "map.npz"

Rows = NDArray[np.int32]
"""Image indices in the order of their split."""
Numbers = NDArray[np.float32]


class EmbeddingMap(NamedTuple):
    """n generated and n real images as 2-D points. Each field is an array of the file."""

    generated_rows: Rows
    """n: their indices in the split."""
    generated_xy: Numbers
    """n x 2."""
    realism: Numbers
    """n: see `manifold.Manifold.realism`."""
    nearest_rows: Rows
    """n: the training image nearest to each generated one, among all training images, in the feature space and not in 2-D."""
    nearest_distances: Numbers
    real_rows: Rows
    """n: indices of the real points in the training split."""
    real_xy: Numbers
    """n x 2."""

    def to_bytes(self) -> bytes:
        """The same bytes for the same values."""
        file = io.BytesIO()
        np.savez(file, **self._asdict())
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, generated_images: int, training_images: int) -> EmbeddingMap:
        """Raises `ValueError` for bytes that are not a map of sets of these sizes."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                if any(entry.compress_size != entry.file_size for entry in file.zip.infolist()):
                    raise ValueError("its arrays are compressed")  # which would leave their size unbounded
                found = cls(**{name: file[name] for name in cls._fields})
        except Exception as error:  # zipfile and numpy raise many types for corrupt bytes
            raise ValueError(f"not a readable map of images ({type(error).__name__}: {error})") from None
        for name, values in found._asdict().items():
            shape = (len(found.realism), *((2,) if name.endswith("_xy") else ()))
            kind = np.int32 if name.endswith("_rows") else np.float32
            if values.dtype != kind or values.shape != shape:
                raise ValueError(f"{name} is {values.dtype} of shape {values.shape}, expected {kind.__name__} of {shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} has values that are not finite")
            images = generated_images if name == "generated_rows" else training_images
            if kind is np.int32 and ((values < 0) | (values >= images)).any():
                raise ValueError(f"{name} has indices beyond the {images:,} images")
        return found
