"""We and our peers, one small file each. What a side cannot do it leaves out, and then has no row in that table.

``PACKAGE``                                 the distribution whose version is printed; not installed: the side is left out
``IMPORTS``                                 the modules that it needs, loaded before a clock starts
``write(folder)``                           make, from ``folder/SOURCE.npy``, what `cached` reads (a child's task)
``CACHED``, ``cached(folder, variant)``     variant → what it reads; the sizes of batches of uint8 images, two sources mixed
                                            1/3 : 2/3 where it can, endless or one epoch
``EPOCH``, ``first_epoch(uri, variant, scratch)``   variant → what it reads; the same for one pass over one source
``ON_S3``                                   what of the folder must be on S3 for that; left out: it reads the folder itself
``sample_ids(uri, scratch)``                one pass over the tars at `uri`, behind a network that fails
``SHUFFLES``, ``shard_numbers(variant, folder)``    variant → shuffle; the shard of each sample, batch by batch, of 100 x 1000
``real_counts(folder, world, batches, batch)``      real samples by batch and rank (`batches` x `world`) at a share of 1/3

Libraries are imported in the functions: the process that lists the sides need not have them.
"""

from __future__ import annotations

from types import ModuleType

from benchmarks.peers import grain, huggingface, litdata, mosaicml, ours, tensordataset, webdataset

SIDES: dict[str, ModuleType] = {
    "ours": ours,
    "webdataset": webdataset,
    "mosaicml": mosaicml,
    "litdata": litdata,
    "huggingface": huggingface,
    "grain": grain,
    "tensordataset": tensordataset,
}
