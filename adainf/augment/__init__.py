"""Augmentation: what strength means (`profiles`), and the batched operations on the device (`views`)."""
