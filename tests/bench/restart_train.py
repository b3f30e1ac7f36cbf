"""A stock script for the restart benchmark: DDP over gloo, a checkpoint every 10 steps, a line for each step."""

import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    folder = os.environ["BENCH_FOLDER"]
    path = f"{folder}/checkpoint.pt"
    torch.manual_seed(0)
    model = DistributedDataParallel(
        torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    )
    optimizer = torch.optim.AdamW(model.parameters())
    step = 0
    if os.path.exists(path):
        state = torch.load(path, weights_only=True)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    with open(f"{folder}/rank-{rank}", "a", buffering=1) as told:
        while True:
            samples = torch.randn(32, 64)
            loss = ((model(samples) - samples.sum(1, keepdim=True)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            told.write(f"{os.getpid()} {step} {time.time():.6f}\n")
            if rank == 0 and step % 10 == 0:
                state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                torch.save(state, f"{path}.new")
                os.replace(f"{path}.new", path)
            time.sleep(0.02)


if __name__ == "__main__":
    main()
