"""The paper's theory: augmentation graphs, connectivity, error bounds."""
