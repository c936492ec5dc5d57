"""An external generator for AdaInf: images of an unconditional StyleGAN2-ADA network, by index.

    PYTHONPATH=path/to/stylegan2-ada-pytorch python external_stylegan2.py CHECKPOINT FIRST COUNT SEED OUTPUT

`legacy` is part of NVIDIA's code, which has its own licence (non-commercial use). Its checkpoints are pickles, which can
execute code when loaded: load only checkpoints that you trust.
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
    sys.exit(
        f"{checkpoint} is class-conditional; use an unconditional network, because AdaInf requires a generator without labels"
    )
images = []
for start in range(first, first + count, BATCH):
    # Full batches, so that an image does not depend on the number of requested images.
    streams = [np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, start + row])) for row in range(BATCH)]
    z = torch.from_numpy(np.stack([stream.standard_normal(network.z_dim) for stream in streams])).to(device)
    with torch.no_grad():
        x = network(z, torch.zeros(BATCH, 0, device=device), noise_mode="const")  # "random" is not reproducible
    x = x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # greyscale to RGB
    images.append((x * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu().numpy())
np.save(output, np.concatenate(images)[:count])
