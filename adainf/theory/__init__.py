"""The paper's theory: augmentation graph, labelling error, connectivity, error bound."""
