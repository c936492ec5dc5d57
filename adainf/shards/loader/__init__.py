"""The weighted shard stream: mixture, fetching, cache."""
