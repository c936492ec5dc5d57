"""The contrastive training loop and what it optimises with."""
