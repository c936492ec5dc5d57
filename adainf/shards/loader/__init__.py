"""The streaming loader: mixture, node cache, prefetching and batches."""
