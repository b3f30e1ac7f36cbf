"""Trains for as long as it is watched: a job for the dashboards. It logs a number of its own."""

import time

import torch

import drivetrain


def main() -> None:
    run = drivetrain.start(defaults={"steps": 100_000, "global_batch": 12})
    samples = torch.randn(4096, 16)
    run.prepare(
        model=torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        data=torch.utils.data.TensorDataset(samples, samples.sum(1, keepdim=True)),
    )

    def forward(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        found, wanted = batch
        return torch.nn.functional.mse_loss(model(found), wanted)

    for batch in run.batches():
        result = run.step(batch, forward)
        run.log(loss=result.loss, error=result.loss**0.5)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
