"""What every process depends on: determinism, settings in the environment, collectives, signals."""
