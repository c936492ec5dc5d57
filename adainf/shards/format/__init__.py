"""The shard format: PNG, tar, index and manifest; readers and writers."""
