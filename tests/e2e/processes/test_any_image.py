"""Jobs in an image that has torch and knows nothing of Drivetrain: here a virtual environment of its own, with the
runtime in a folder, as an init container brings it. Whatever the image has beside torch stays its own."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.runtime import RuntimeSpec
from harness import brought
from harness.job import QUICK, LocalJob
from harness.patience import until_true

STOCK = Path(__file__).with_name("stock.py")
TRAINS = """
import sys, torch, drivetrain
run = drivetrain.start()
model = torch.nn.Linear(4, 1)
data = torch.utils.data.TensorDataset(torch.randn(48, 4), torch.randn(48, 1))
run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.01), data=data)
for batch in run.batches():
    run.step(batch, lambda model, shard: (model(shard[0]) - shard[1]).square().mean())
run.finish()
import yarl
print("drivetrain from", drivetrain.__file__, "yarl from", yarl.__file__, flush=True)
"""


@dataclass(frozen=True)
class Image:
    """An image that is unpacked here."""

    bin: Path
    """Where its interpreter is."""
    packages: Path


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brought.runtime(tmp_path_factory.mktemp("pod"))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """With `python3`, without `python`; with torch and what torch needs; with packages of ours, but in no version that
    could be used."""
    folder = tmp_path / "image"
    (folder / "bin").mkdir(parents=True)
    packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    (folder / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    for site in {Path(torch.__file__).parents[1], Path(os.__file__).parent}:
        for each in site.iterdir() if site.name == "site-packages" else ():
            if re.match(
                r"(torch|numpy|fsspec|nvidia|cuda|triton|sympy|mpmath|filelock|networkx|jinja2|markup)", each.name
            ):
                (packages / each.name).symlink_to(each)
    (packages / "aiohttp.py").write_text("raise ImportError('the aiohttp of the image is not for the launcher')")
    (packages / "yarl.py").write_text("version = 'of the image'")
    return Image(folder / "bin", packages)


@asynccontextmanager
async def job(folder: Path, image: Image, launch: Path, command: list[str], **of: object) -> AsyncIterator[LocalJob]:
    """With what users set and have around: a PYTHONPATH, and a working folder whose files are called like Python's."""
    path = folder / "path"
    path.mkdir()
    for name in ("json", "asyncio", "pydantic", "selectors", "signal"):
        (folder / f"{name}.py").write_text("raise ImportError('the file in the working folder was taken')")
    (path / "mine.py").write_text("")
    (path / "aiohttp.py").write_text("raise ImportError('the file in the folder of PYTHONPATH was taken')")
    spec = RuntimeSpec.model_validate({"workers": 2, "min_workers": 2, "spares": 0, "max_restarts": 3, **of})
    environment = {
        "PATH": f"{image.bin}:/usr/bin:/bin",
        "PYTHONPATH": f"{QUICK}:{path}",
        "FOLDER": str(folder),
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    async with LocalJob.run(folder, spec, command, environment, launcher=("sh", str(launch))) as running:
        yield running


def trains(folder: Path) -> Path:
    """The script, in a folder of its own."""
    script = folder / "code" / "train.py"
    script.parent.mkdir()
    script.write_text(TRAINS)
    return script


def printed(running: LocalJob) -> str:
    return "\n".join(path.read_text() for path in sorted(running.folder.glob("pod-*.log")))


async def test_a_stock_script_survives_a_lost_pod_in_place(tmp_path: Path, image: Image, launch: Path) -> None:
    (tmp_path / "slow").touch()
    async with job(tmp_path, image, launch, ["python", str(STOCK)], runtime="auto") as running:

        def begun(times: int, step: int) -> bool:
            steps = re.findall(r"step (\d+) loss", printed(running))
            return printed(running).count("begins at") >= times and bool(steps) and int(steps[-1]) >= step

        await until_true(lambda: begun(2, 13), lambda: running.logs(), 90.0)
        survivor = next(pod for pod in running.pods.values() if pod.index == 0)
        await running.kill_pod(next(pod.uid for pod in running.pods.values() if pod.index == 1))
        await running.start_pod(1)
        await until_true(lambda: begun(4, 14), lambda: running.logs(), 90.0)
        (tmp_path / "slow").unlink()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert survivor in running.pods.values()
        starts = [int(step) for step in re.findall(r"begins at (\d+)", printed(running))]
        assert sorted(starts)[:2] == [0, 0]
        assert sorted(starts)[2] >= 10
        python = f"Python {sys.version.split()[0]} ({image.bin}/python3) with torch {torch.__version__}"
        assert f"the operator's runtime runs in {python}" in printed(running)


async def test_a_script_of_drivetrains_trains(tmp_path: Path, image: Image, launch: Path) -> None:
    """Our packages are those that were brought; all others are the image's, where it has them."""
    script = trains(tmp_path)
    training = {"steps": 5, "global_batch": 12}
    async with job(tmp_path, image, launch, ["python3", str(script)], runtime="auto", training=training) as running:
        assert await running.completed(90.0) == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        ours = launch.parent / "first" / "drivetrain" / "__init__.py"
        assert printed(running).count(f"drivetrain from {ours} yarl from {image.packages}/yarl.py") == 2


async def test_an_image_without_torch_is_told_before_anything_runs(tmp_path: Path, image: Image, launch: Path) -> None:
    (image.packages / "torch").unlink()
    async with job(tmp_path, image, launch, ["python3", str(STOCK)], runtime="auto") as running:
        assert await running.completed() == [ExitCode.UNFIT, ExitCode.UNFIT]
        assert "spec.image does not fit: its Python" in printed(running)
        assert "has no torch" in printed(running)
        assert "begins at" not in printed(running)


async def test_a_shell_starts_the_script(tmp_path: Path, image: Image, launch: Path) -> None:
    """Whatever Python it starts finds the package; and a rank's death is seen, as it is without a shell."""
    script = trains(tmp_path)
    training = {"steps": 5, "global_batch": 12}
    command = ["sh", "-c", f"exec python3 {script}"]
    async with job(tmp_path, image, launch, command, runtime="drivetrain", training=training) as running:
        assert await running.completed(90.0) == [ExitCode.COMPLETE, ExitCode.COMPLETE]


async def test_a_launcher_is_ended_by_its_pod(tmp_path: Path, image: Image, launch: Path) -> None:
    """It is process 1: no shell stays before it, and SIGTERM reaches it."""
    (tmp_path / "slow").touch()
    async with job(tmp_path, image, launch, ["python3", str(STOCK)], runtime="torchrun", min_workers=1) as running:
        await until_true(lambda: "step 3 " in printed(running), lambda: running.logs(), 90.0)
        leaver = next(pod for pod in running.pods.values() if pod.index == 1)
        assert Path(f"/proc/{leaver.process.pid}/cmdline").read_text().split("\0")[1:3] == ["-I", "-S"]
        running.target = 1
        leaver.process.send_signal(signal.SIGTERM)
        assert await running.left(leaver) == ExitCode.LEFT
