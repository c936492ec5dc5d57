"""Augmentation: what strength means (`profiles`), and random views of a batch on its device (`views`).

A view is drawn (`draws`, from the counters of `philox`), then made of its image by `crop`, `colour` and `blur`, in the order
of the paper's code: crop and flip, jitter, greyscale, blur, solarisation, normalisation.
"""
