"""Images of a StyleGAN2-ADA network that knows no classes, by index: an external generator for AdaInf.

    PYTHONPATH=path/to/stylegan2-ada-pytorch python external_stylegan2.py CHECKPOINT FIRST COUNT SEED OUTPUT

`legacy` is from your own checkout of NVIDIA's code, which has a licence of its own (not for commercial use). Its checkpoints
are pickles: loading one runs what is in it, so use none that you do not trust.
"""

import sys

import legacy
import numpy as np
import torch

BATCH = 64
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
checkpoint, first, count, seed, output = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
with open(checkpoint, "rb") as file:  # noqa: PTH123
    network = legacy.load_network_pkl(file)["G_ema"].eval().to(device)
if network.c_dim:
    sys.exit(f"{checkpoint} was fitted with classes: AdaInf wants a generator that has seen no labels")
images = []
for start in range(first, first + count, BATCH):
    # Always as many, so that an image does not depend on how many were asked for.
    streams = [np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, start + row])) for row in range(BATCH)]
    z = torch.from_numpy(np.stack([stream.standard_normal(network.z_dim) for stream in streams])).to(device)
    with torch.no_grad():
        x = network(z, torch.zeros(BATCH, 0, device=device), noise_mode="const")  # "random" would not come again
    x = x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # grey becomes RGB
    images.append((x * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu().numpy())
np.save(output, np.concatenate(images)[:count])
