"""How good an encoder is, by one protocol for every encoder: its features, probes on them, and fine-tuning."""
