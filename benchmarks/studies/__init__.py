"""The parts of benchmarks.study: its data, its cells, and what is made of their scores."""
