"""Images in WebDataset tar shards, with deterministic bytes, an offset index per shard and one typed manifest; and
`open_stream`, a stream of batches with exact shares, order and resumption."""

from adainf.shards.loader.batch import Batch
from adainf.shards.loader.companions import Companions
from adainf.shards.loader.open import open_stream
from adainf.shards.loader.source import Source
from adainf.shards.loader.stream import Stream

__all__ = ["Batch", "Companions", "Source", "Stream", "open_stream"]
