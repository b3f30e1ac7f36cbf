"""A loop with Lightning Fabric: digits are told apart by a convolution, the state is saved with `fabric.save`."""

import argparse
import os

import torch
from lightning.fabric import Fabric, seed_everything
from sklearn.datasets import load_digits
from torch import nn


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=90)
    options = parser.parse_args()

    fabric = Fabric(
        accelerator="auto",
        strategy="ddp",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
    )
    fabric.launch()
    seed_everything(0)
    digits = load_digits()
    data = torch.utils.data.TensorDataset(
        torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(digits.target)
    )
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(torch.utils.data.DataLoader(data, batch_size=16, shuffle=True, drop_last=True))

    state = {"model": model, "optimizer": optimizer, "step": 0}
    path = os.path.join(options.output, "checkpoint.ckpt")
    if os.path.exists(path):
        fabric.load(path, state)

    while state["step"] < options.steps:
        passes, done = divmod(state["step"], len(loader))
        loader.sampler.set_epoch(passes)
        for index, (images, targets) in enumerate(loader):
            if index < done:
                continue
            loss = nn.functional.cross_entropy(model(images), targets)
            fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            state["step"] += 1
            mean = fabric.all_reduce(loss.detach(), reduce_op="mean")
            if fabric.is_global_zero:
                print(f"step {state['step']} loss {mean.item():.9f}", flush=True)
            if state["step"] % 10 == 0:
                fabric.save(path + ".new", state)
                fabric.barrier()
                if fabric.is_global_zero:
                    os.replace(path + ".new", path)
            if state["step"] == options.steps:
                break


if __name__ == "__main__":
    main()
