"""Lightning's `Trainer`: an autoencoder of digits, with `ModelCheckpoint` and `ckpt_path="last"`."""

import argparse
import os

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn


class AutoEncoder(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 64))

    def training_step(self, batch, index):
        (images,) = batch
        loss = nn.functional.mse_loss(self.decoder(self.encoder(images)), images)
        self.log("train_loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Printer(Callback):
    """The loss of each step as one line."""

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
        if trainer.is_global_zero:
            print(f"step {trainer.global_step} loss {loss.item():.9f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--save-on-exception", action="store_true", help="save when SIGTERM comes")
    parser.add_argument("--save-at-sigterm", action="store_true", help="... with Drivetrain's callback for it")
    options = parser.parse_args()

    L.seed_everything(0)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images), batch_size=16, shuffle=True, drop_last=True
    )
    saver = ModelCheckpoint(
        dirpath=options.output,
        save_last=True,
        every_n_train_steps=10,
        save_top_k=-1,
        **({"save_on_exception": True} if options.save_on_exception else {}),
    )
    callbacks = [saver, Printer()]
    if options.save_at_sigterm:
        from drivetrain.integrations.lightning import SaveAtSigterm

        callbacks.append(SaveAtSigterm())
    trainer = L.Trainer(
        accelerator="auto",
        strategy="ddp",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        max_steps=options.steps,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(AutoEncoder(), loader, ckpt_path="last")


if __name__ == "__main__":
    main()
