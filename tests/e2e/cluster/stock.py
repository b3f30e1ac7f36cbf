"""A DDP script as people have it: rank 0 has the checkpoint, the others get everything from it. SIGTERM is the time to
save: at one step, on which the ranks agree."""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

PATH = os.environ.get("DRIVETRAIN_OUTPUT_DIR", "/tmp") + "/checkpoint.pt"
STEPS = int(os.environ["STEPS"])


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    model = torch.nn.Linear(4, 1)
    step = torch.zeros((), dtype=torch.int64)
    if rank == 0 and os.path.exists(PATH):
        state = torch.load(PATH, weights_only=True)
        model.load_state_dict(state["model"])
        step.fill_(state["step"])
    dist.broadcast(step, 0)
    begin = int(step)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.05)
    print(f"begins at {begin} rank {rank} of {world}", flush=True)
    generator = torch.Generator()
    for number in range(begin + 1, STEPS + 1):
        samples = torch.randn(12, 4, generator=generator.manual_seed(number))[rank::world]
        loss = ((ddp(samples) - samples.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(0.1)
        stop = torch.tensor(len(stopping))
        dist.all_reduce(stop)
        if rank == 0 and (stop or number % 10 == 0):
            torch.save({"model": model.state_dict(), "step": number}, f"{PATH}.new")
            os.replace(f"{PATH}.new", PATH)
        print(f"step {number} loss {loss.item():.6f}", flush=True)
        if stop:
            print(f"saved at {number}", flush=True)
            sys.exit(0)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
