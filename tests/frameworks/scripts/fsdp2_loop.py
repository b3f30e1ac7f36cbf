"""FSDP2: a transformer whose parameters are shared out, with checkpoints of torch.distributed.checkpoint."""

import argparse
import os
import pydoc_data.topics

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Model(nn.Module):
    def __init__(self, width=64, layers=2, length=32):
        super().__init__()
        self.letters = nn.Embedding(128, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(width, 128)

    def forward(self, tokens):
        hidden = self.letters(tokens) + self.places
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return self.head(hidden)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    dist.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (world,), mesh_dim_names=("shard",))
    torch.manual_seed(0)
    model = Model()
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    step = 0
    latest = os.path.join(options.output, "latest")
    if os.path.exists(latest):
        with open(latest) as file:
            step = int(file.read())
        weights, moments = get_state_dict(model, optimizer)
        state = {"model": weights, "optimizer": moments}
        dcp.load(state, checkpoint_id=os.path.join(options.output, f"step-{step}"))
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    text = "".join(pydoc_data.topics.topics.values())
    tokens = torch.tensor([min(ord(letter), 127) for letter in text[:100_000]])
    generator = torch.Generator()
    while step < options.steps:
        starts = torch.randint(len(tokens) - 33, (16,), generator=generator.manual_seed(step))[rank::world]
        pieces = torch.stack([tokens[start : start + 33] for start in starts.tolist()])
        loss = nn.functional.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        if rank == 0:
            print(f"step {step} loss {mean.item() / world:.9f}", flush=True)
        if step % 10 == 0:
            weights, moments = get_state_dict(model, optimizer)
            dcp.save(
                {"model": weights, "optimizer": moments}, checkpoint_id=os.path.join(options.output, f"step-{step}")
            )
            dist.barrier()
            if rank == 0:
                with open(latest + ".new", "w") as file:
                    file.write(str(step))
                os.replace(latest + ".new", latest)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
