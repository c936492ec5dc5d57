"""Images in WebDataset tar shards: deterministic bytes, an offset index beside every shard, one typed manifest; and the
stream of batches that is exact in shares, order and resumption (`open_stream`)."""

from adainf.shards.loader.open import Source, open_stream
from adainf.shards.loader.stream import Batch, Stream

__all__ = ["Batch", "Source", "Stream", "open_stream"]
