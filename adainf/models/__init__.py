"""Networks: backbones, heads, UNets, GAN networks, batch normalisation across processes, and encoder files."""
