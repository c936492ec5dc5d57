"""The shard format: PNG, tar, index, manifest."""
