"""Train torchvision's ResNet-18 on a weighted stream of shards, on one process or several:

    python docs/examples/train_resnet.py runs/demo/real=10 runs/demo/generated --steps 100
    torchrun --nproc-per-node 2 docs/examples/train_resnet.py s3://bucket/real=10 s3://bucket/generated

It uses only `open_stream` of AdaInf. The supervised loss ignores images without label. After an interruption, it resumes from
`checkpoint.pt`, on any number of processes.
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
    parser.add_argument("sets", nargs="+", help="folder of a shard set, optionally with =WEIGHT")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--global-batch", type=int, default=128)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    arguments = parser.parse_args()

    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if distributed:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(0)
    model: nn.Module = resnet18(num_classes=10).to(device)
    trained = DistributedDataParallel(model) if distributed else model
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)

    sources = {}
    for argument in arguments.sets:
        address, _, weight = argument.partition("=")
        sources[address] = Source(address, float(weight or 1))
    with open_stream(sources, arguments.global_batch, seed=0) as stream:  # the rank comes from the launcher
        if arguments.checkpoint.exists():
            saved = torch.load(arguments.checkpoint, map_location=device, weights_only=True)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            stream.load_state_dict(saved["stream"])
        for batch in stream:
            if batch.step >= arguments.steps:
                break
            images = torch.from_numpy(batch.images).to(device).permute(0, 3, 1, 2).contiguous().float() / 255
            labels = torch.from_numpy(batch.labels).to(device)
            loss = nn.functional.cross_entropy(trained(images), labels, ignore_index=-1) * stream.loss_weight
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if batch.step % 10 == 0 and stream.rank == 0:
                print(f"step {batch.step}: loss {loss.item():.3f}, {stream.data_wait_seconds:.2f} s data wait", flush=True)
        if stream.rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "stream": stream.state_at(batch.step)}
            torch.save(state, arguments.checkpoint)
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
