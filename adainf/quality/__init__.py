"""Label-free quality metrics of generated images against held-out real ones; the null of each is the score of real images."""
