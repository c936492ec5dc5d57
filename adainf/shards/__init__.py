"""Images in WebDataset tar shards: deterministic bytes, an offset index beside every shard, one typed manifest."""
