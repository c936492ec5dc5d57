"""What every process depends on: determinism, collectives, signals."""
