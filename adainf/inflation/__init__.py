"""How much a real image weighs against a generated one, and how strong the augmentation may be."""
