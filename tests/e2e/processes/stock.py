"""A script as people have it: DDP over gloo, `env://`, a checkpoint that rank 0 writes, and no word of Drivetrain.

`FOLDER` is where the checkpoint and the test's files are; while `FOLDER/slow` is there, steps take their time, and the
last one does not come.
"""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = 60


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    folder = os.environ["FOLDER"]
    path = f"{folder}/checkpoint.pt"
    stopping = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))

    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = 0
    if os.path.exists(path):
        state = torch.load(path, weights_only=True)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    with open(f"{folder}/pid-{rank}", "w") as file:
        file.write(str(os.getpid()))
    print(f"begins at {step} pid {os.getpid()}", *(f"{name}={os.environ[name]}" for name in names), flush=True)

    def save() -> None:
        if rank == 0:
            state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, f"{path}.new")
            os.replace(f"{path}.new", path)

    generator = torch.Generator()
    while True:
        # One batch, whatever the world: each rank takes its share of the samples of it.
        samples = torch.randn(12, 4, generator=generator.manual_seed(step))[rank::world]
        loss = ((model(samples) - samples.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        told = torch.tensor([len(stopping), os.path.exists(f"{folder}/slow")])
        dist.all_reduce(told)
        stop, slow = told.tolist()
        if rank == 0:
            print(f"step {step} loss {mean.item() / world:.9f}", flush=True)
        if stop or step % 10 == 0:
            save()
        if stop:
            print(f"saved at {step}", flush=True)
            sys.exit(0)
        if slow:
            time.sleep(0.05)
        elif step >= STEPS:
            break
    save()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
