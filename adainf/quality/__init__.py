"""How good generated images are, without labels: against held-out real images, and beside what real images score there."""
