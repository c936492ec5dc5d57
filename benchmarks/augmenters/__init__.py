"""We and our peers in augmentation, one small file each.

``PACKAGE``                                 the distribution whose version is printed; not installed: the side is left out
``VARIANTS``                                variant → what it does
``augmenter(variant, profile, size_px)``    a function of (images B x H x W x 3 uint8, step) → B standardised views in one or
                                            more tensors n x 3 x `size_px` x `size_px`, float32

All do the operations of the profile in one order: bicubic random resized crop, colour jitter, greyscale, blur, solarisation,
flip, standardisation. Libraries are imported in the functions: the process that lists the sides need not have them.
"""

from __future__ import annotations

from types import ModuleType

from benchmarks.augmenters import kornia, ours, torchvision

SIDES: dict[str, ModuleType] = {"ours": ours, "torchvision": torchvision, "kornia": kornia}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
"""Of CIFAR-10."""
BLUR_TAPS_PX = 13
"""Of those who need a kernel's size: three of the largest sigma, 2 px, to either side."""
