"""Hugging Face's `Trainer`: a small GPT-2 learns Python's own manual by heart, with checkpoints in its own way."""

import argparse
import os
import pydoc_data.topics

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint


class Text(torch.utils.data.Dataset):
    """Pieces of `length` characters, one token each."""

    def __init__(self, length=64):
        text = "".join(pydoc_data.topics.topics.values())[:200_000]
        self.tokens = torch.tensor([min(ord(letter), 127) for letter in text])
        self.length = length

    def __len__(self):
        return len(self.tokens) // self.length

    def __getitem__(self, index):
        piece = self.tokens[index * self.length : (index + 1) * self.length]
        return {"input_ids": piece, "labels": piece}


class Printer(TrainerCallback):
    """The loss of each step as one line."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in logs:
            print(f"step {state.global_step} loss {logs['loss']}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--just-in-time", action="store_true", help="save when SIGTERM comes")
    options = parser.parse_args()

    set_seed(0)
    config = GPT2Config(vocab_size=128, n_positions=64, n_embd=64, n_layer=2, n_head=2)
    arguments = TrainingArguments(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        save_steps=10,
        save_total_limit=3,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        **({"enable_jit_checkpoint": True} if options.just_in_time else {}),
    )
    trainer = Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=Text(), callbacks=[Printer()])
    last = get_last_checkpoint(options.output) if os.path.isdir(options.output) else None
    trainer.train(resume_from_checkpoint=last)


if __name__ == "__main__":
    main()
