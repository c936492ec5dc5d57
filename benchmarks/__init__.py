"""What AdaInf costs beside its peers: ``python -m benchmarks.stream [--quick] [--json FILE]``. Figures for people, no tests."""
