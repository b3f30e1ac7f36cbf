"""A loop with Hugging Face's Accelerate: digits are told apart, the state is saved with `save_state`."""

import argparse
import os

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from sklearn.datasets import load_digits
from torch import nn


class Progress:
    """What else belongs to a checkpoint."""

    def __init__(self):
        self.step = 0

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=90)
    options = parser.parse_args()

    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    set_seed(0)
    digits = load_digits()
    data = torch.utils.data.TensorDataset(
        torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    )
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)

    latest = os.path.join(options.output, "latest")
    if os.path.exists(latest):
        with open(latest) as file:
            accelerator.load_state(os.path.join(options.output, file.read()))

    while progress.step < options.steps:
        passes, done = divmod(progress.step, len(loader))
        loader.set_epoch(passes)
        for inputs, targets in accelerator.skip_first_batches(loader, done) if done else loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            progress.step += 1
            mean = accelerator.reduce(loss.detach(), "mean")
            if accelerator.is_main_process:
                print(f"step {progress.step} loss {mean.item():.9f}", flush=True)
            if progress.step % 10 == 0:
                accelerator.save_state(os.path.join(options.output, f"step-{progress.step}"))
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    with open(latest + ".new", "w") as file:
                        file.write(f"step-{progress.step}")
                    os.replace(latest + ".new", latest)
            if progress.step == options.steps:
                break
    accelerator.end_training()


if __name__ == "__main__":
    main()
