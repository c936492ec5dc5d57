"""The inflation plan: the weight of real against generated images, and the augmentation strength."""
