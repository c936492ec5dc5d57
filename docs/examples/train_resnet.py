"""Train torchvision's ResNet-18 on a weighted stream of shards, on one process or several:

    python docs/examples/train_resnet.py runs/demo/real=10 runs/demo/generated --steps 100
    torchrun --nproc-per-node 2 docs/examples/train_resnet.py s3://bucket/real=10 s3://bucket/generated

Nothing of AdaInf is used but `open_stream`. Images without a label are left out of this (supervised) loss. Stop it and start
it again: it goes on from `checkpoint.pt`, on as many processes as you like.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet18

from adainf.shards import Source, open_stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="the folder of a set of shards, =WEIGHT behind it")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--global-batch", type=int, default=128)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    chosen = parser.parse_args()

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(0)
    model: nn.Module = resnet18(num_classes=10).to(device)
    trained = DistributedDataParallel(model) if several else model
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)

    sources = {}
    for named in chosen.sets:
        address, _, weight = named.partition("=")
        sources[address] = Source(address, float(weight or 1))
    with open_stream(sources, chosen.global_batch, seed=0) as stream:  # the rank comes from the launcher
        if chosen.checkpoint.exists():
            saved = torch.load(chosen.checkpoint, map_location=device, weights_only=True)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            stream.load_state_dict(saved["stream"])
        for batch in stream:
            if batch.step >= chosen.steps:
                break
            images = torch.from_numpy(batch.images).to(device).permute(0, 3, 1, 2).contiguous().float() / 255
            labels = torch.from_numpy(batch.labels).to(device)
            loss = nn.functional.cross_entropy(trained(images), labels, ignore_index=-1) * stream.loss_weight
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if batch.step % 10 == 0 and stream.rank == 0:
                print(f"step {batch.step}: loss {loss.item():.3f}, {stream.data_wait_seconds:.2f} s of waiting", flush=True)
        if stream.rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "stream": stream.state_at(batch.step)}
            torch.save(state, chosen.checkpoint)
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
