"""A DDP loop as people have it, with three lines more: its state is kept in memory, and nowhere else.

With dropout, batch statistics, a schedule and data by an epoch's sampler. The last line is a hash of what was trained.
"""

import hashlib
import os
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from drivetrain.integrations.memory import Memory

STEPS = 60


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    samples = torch.randn(96, 8)
    data = TensorDataset(samples, samples.sum(1, keepdim=True))
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(data)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    memory = Memory(model=model, optimizer=optimizer, schedule=schedule)
    step = memory.restore()
    print(f"begins at {step} pid {os.getpid()}", flush=True)
    while step < STEPS:
        passes, done = divmod(step, len(loader))
        sampler.set_epoch(passes)
        for index, (inputs, targets) in enumerate(loader):
            if index < done or step == STEPS:
                continue
            optimizer.zero_grad()
            loss = ((model(inputs) - targets) ** 2).mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            memory.keep(step)
            if dist.get_rank() == 0:
                print(f"step {step} loss {loss.item():.9f}", flush=True)
            if os.path.exists("slow"):
                time.sleep(0.05)
    state = {"model": model.state_dict(), "moments": optimizer.state_dict()["state"]}
    digest = hashlib.sha256()
    for name, tensor in sorted(state["model"].items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    for number, values in sorted(state["moments"].items()):
        digest.update(str(number).encode() + b"".join(values[key].numpy().tobytes() for key in sorted(values)))
    print(f"trained {digest.hexdigest()}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
