"""Augmentation: profiles of strength (`profiles`), and random views of a batch on its device (`views`).

`draws` samples the parameters of a view from the counter-based generator `philox`. `crop`, `colour` and `blur` apply them, in
the order of the paper's code: crop and flip, jitter, greyscale, blur, solarisation, normalisation.
"""
