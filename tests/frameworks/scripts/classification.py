"""As torchvision's reference for classification: a residual network, synchronised statistics, data workers, evaluation
after each pass, `--resume`."""

import argparse
import os
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


class Block(nn.Module):
    def __init__(self, planes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(planes, planes, 3, padding=1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, padding=1, bias=False),
            nn.BatchNorm2d(planes),
        )

    def forward(self, x):
        return nn.functional.relu(x + self.layers(x))


def resnet(planes=8):
    return nn.Sequential(
        nn.Conv2d(1, planes, 3, padding=1, bias=False),
        nn.BatchNorm2d(planes),
        nn.ReLU(inplace=True),
        Block(planes),
        Block(planes),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * planes, 10),
    )


class Average:
    """Of all ranks."""

    def __init__(self, device):
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, value, count):
        self.sums += torch.tensor([value * count, count], dtype=torch.float64)

    def value(self):
        dist.barrier()
        dist.all_reduce(self.sums)
        return (self.sums[0] / self.sums[1]).item()


def train_one_epoch(model, criterion, optimizer, loader, device):
    model.train()
    loss_meter = Average(device)
    for image, target in loader:
        image, target = image.to(device), target.to(device)
        loss = criterion(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_meter.update(loss.item(), len(image))
    return loss_meter.value()


@torch.inference_mode()
def evaluate(model, loader, device):
    model.eval()
    accuracy = Average(device)
    for image, target in loader:
        right = (model(image.to(device)).argmax(1) == target.to(device)).float()
        accuracy.update(right.mean().item(), len(right))
    return accuracy.value()


def save_on_master(state, path):
    if dist.get_rank() == 0:
        torch.save(state, path + ".new")
        os.replace(path + ".new", path)


def main(args):
    distributed_backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(distributed_backend, init_method="env://")
    dist.barrier()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(0)

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    split = train_test_split(images, torch.tensor(digits.target), test_size=0.25, random_state=0)
    train, test = torch.utils.data.TensorDataset(split[0], split[2]), torch.utils.data.TensorDataset(split[1], split[3])
    train_sampler = torch.utils.data.distributed.DistributedSampler(train)
    test_sampler = torch.utils.data.distributed.DistributedSampler(test, shuffle=False)
    loader = torch.utils.data.DataLoader(
        train, batch_size=args.batch_size, sampler=train_sampler, num_workers=args.workers
    )
    test_loader = torch.utils.data.DataLoader(test, batch_size=args.batch_size, sampler=test_sampler)

    model = resnet().to(device)
    if torch.cuda.is_available():
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
    model = nn.parallel.DistributedDataParallel(model)
    model_without_ddp = model.module

    start_epoch = 0
    if args.resume and os.path.exists(args.resume):
        checkpoint = torch.load(args.resume, map_location="cpu", weights_only=True)
        model_without_ddp.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        lr_scheduler.load_state_dict(checkpoint["lr_scheduler"])
        start_epoch = checkpoint["epoch"] + 1

    start_time = time.time()
    for epoch in range(start_epoch, args.epochs):
        train_sampler.set_epoch(epoch)
        loss = train_one_epoch(model, criterion, optimizer, loader, device)
        lr_scheduler.step()
        accuracy = evaluate(model, test_loader, device)
        if dist.get_rank() == 0:
            print(f"step {epoch + 1} loss {loss:.9f} accuracy {accuracy:.4f}", flush=True)
        checkpoint = {
            "model": model_without_ddp.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": lr_scheduler.state_dict(),
            "epoch": epoch,
            "args": vars(args),
        }
        save_on_master(checkpoint, os.path.join(args.output_dir, "checkpoint.pth"))
    print(f"Training time {time.time() - start_time:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--resume", default="")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("-j", "--workers", type=int, default=2)
    main(parser.parse_args())
