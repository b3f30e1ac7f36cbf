"""Does what the documentation shows work? Every code block of it is run, validated or parsed, by its language."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from drivetrain_api.constants import KIND
from drivetrain_api.resolve import to_runtime
from drivetrain_api.rules import violations
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_cli.main import make_parser
from drivetrain_energy.settings import of as energy_settings
from harness.served import obeyed, served

ROOT: Final = Path(__file__).parents[3]
PAGES: Final = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "adr" not in path.parts),
]
LANGUAGES: Final = {"yaml", "python", "console", "text"}
PREAMBLE: Final = """
import torch
import torch.nn.functional as F
from torch import nn
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
model = Net()
dataset = valid = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randint(0, 3, (64,)))
step, steps, loss, accuracy = 0, 3, 0.5, 0.9
def train(step): ...
"""
FORWARD: Final = """
def forward(model, shard):
    x, y = shard
    return F.cross_entropy(model(x), y)
another_forward = forward
"""
STARTED: Final = """
import drivetrain
run = drivetrain.start()
"""
PREPARED: Final = """
run.prepare(model=model, optimizer=lambda params: torch.optim.AdamW(params, 3e-4), data=dataset)
"""
ALONE: Final = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
"""
OTHERS: Final = ("lightning", "transformers", "accelerate", "kubeflow")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        language, start, lines = None, 0, list[str]()
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            fence = re.match(r"\s*```\s*(\S*)\s*$", line)
            if fence and language is None:
                language, start, lines = fence[1], number, []
            elif fence:
                yield Block(str(page.relative_to(ROOT)), start, language or "", "\n".join(lines))
                language = None
            elif language is not None:
                lines.append(line)
        assert language is None, f"{page}: a block that is never closed"


BLOCKS: Final = list(blocks())


def of(language: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == language], ids=str)


def test_every_block_says_what_it_is() -> None:
    assert [str(each) for each in BLOCKS if each.language not in LANGUAGES and not each.language.startswith("{")] == []
    assert len(BLOCKS) > 20


@of("python")
def test_python_runs(block: Block, tmp_path: Path) -> None:
    """Alone, as a user tries it first; a piece of a script, in a script."""
    if library := next((each for each in OTHERS if each in block.text and find_spec(each) is None), None):
        compile(block.text, str(block), "exec")
        pytest.skip(f"{library} is not installed here; make test-frameworks runs such scripts")
    script = tmp_path / "script.py"
    script.write_text(_before(block.text) + block.text)
    spec = TrainingJobSpec.model_validate(
        {"image": "image", "command": ["python"], "training": {"steps": 2, "batch": {"global": 8}}}
    )
    environment = {
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}",
        "PATH": "/usr/bin:/bin",
        "DRIVETRAIN_SPEC": to_runtime(spec).model_dump_json(exclude_none=True),
        "OMP_NUM_THREADS": "1",
    }
    with contextlib.ExitStack() as stack:
        if "drivetrain.client" in block.text:
            environment["KUBECONFIG"] = str(tmp_path / "kubeconfig")
            stack.enter_context(obeyed(stack.enter_context(served(tmp_path))))
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def _before(text: str) -> str:
    """What a piece of a script takes for granted."""
    parts = [PREAMBLE]
    if "DistributedDataParallel" in text:
        parts.append(ALONE)
    if "drivetrain.start(" not in text and "run." in text:
        parts += [FORWARD, STARTED, "" if "run.prepare(" in text else PREPARED]
    return "".join(parts)


@of("yaml")
def test_yaml_is_valid(block: Block) -> None:
    """A TrainingJob, or a part of its spec, as the API server judges it."""
    for found in yaml.safe_load_all(block.text):
        if "settings" in found.get("energy", {}):  # of the chart; the operator reads them
            energy_settings(found["energy"]["settings"])
            continue
        if "kind" in found and found["kind"] != KIND:
            assert found["apiVersion"], block
            continue
        spec = found.get("spec") if "spec" in found else found
        if not set(spec) <= _spec_fields():
            assert set(found) <= set(yaml.safe_load((ROOT / "charts/drivetrain/values.yaml").read_text())), block
            continue
        least = {"image": "image"} | ({} if {"command", "script"} & set(spec) else {"command": ["python", "train.py"]})
        job = {
            "apiVersion": "drivetrain.dev/v1alpha1",
            "kind": KIND,
            "metadata": {"name": "job", "namespace": "default"},
            "spec": {**least, **spec},
        }
        TrainingJobSpec.model_validate(job["spec"])
        assert violations(job) == [], block
        unknown = _unknown(job["spec"], TrainingJobSpec.model_json_schema(by_alias=True))
        assert unknown == [], f"{block}: {unknown}"


def _spec_fields() -> set[str]:
    return set(TrainingJobSpec.model_json_schema(by_alias=True)["properties"])


def _unknown(value: Any, schema: Any, root: Any = None, path: str = "spec") -> list[str]:
    """Fields that the API server would prune."""
    root = root or schema
    for kind in [schema, *schema.get("anyOf", []), *schema.get("allOf", [])]:
        if "$ref" in kind:
            return _unknown(value, root["$defs"][kind["$ref"].rpartition("/")[2]], root, path)
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = [f"{path}.{name}" for name in value if name not in schema["properties"]]
    for name in set(value) & set(schema["properties"]):
        found += _unknown(value[name], schema["properties"][name], root, f"{path}.{name}")
    return found


@of("console")
def test_commands_are_there(block: Block) -> None:
    """Their flags are known, their targets and files exist. What they do is what the other tests are about."""
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block.text, re.MULTILINE)
    assert commands, f"{block}: no line begins with '$ '"
    for command in commands:
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{block}: {command}\n{checked.stderr}"
        for part in re.split(r"\s(?:\||&&|;)\s", command.replace("\\\n", " ")):
            _check(shlex.split(part, comments=True), block)


TARGETS: Final = set(re.findall(r"^([a-z][-a-z]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
KNOWN: Final = {
    "kubectl",
    "helm",
    "make",
    "drivetrain",
    "pip",
    "python",
    "git",
    "cd",
    "docker",
    "torchrun",
    "openssl",
    "source",
}


def _check(words: list[str], block: Block) -> None:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return
    assert words[0] in KNOWN or (ROOT / words[0]).exists(), f"{block}: {words[0]}"
    if words[0] == "make":
        wanted = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
        assert wanted <= TARGETS, f"{block}: make {wanted - TARGETS}"
    if words[:2] == ["kubectl", "drivetrain"]:
        words = words[1:]
    if words[0] == "drivetrain":
        _parses(words[1:], block)
    for word in words:
        if re.fullmatch(r"(charts|examples|scripts|tests)/[-\w/.]+", word):
            assert (ROOT / word).exists(), f"{block}: there is no {word}"


def _parses(arguments: list[str], block: Block) -> None:
    try:
        make_parser().parse_args([word for word in arguments if word != ">"])
    except SystemExit as end:
        assert end.code == 0, f"{block}: drivetrain {shlex.join(arguments)}"  # noqa: PT017 - argparse ends so


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = [name for name in re.findall(r"`(docs/[-\w/]+\.md)`", text) if not (ROOT / name).exists()]
    for target in [] if page.parent.name == "reference" else re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if not (page.parent / target).exists():
            missing.append(target)
    for name in re.findall(r"`((?:examples|charts|scripts|worker-image|operator|tests)/[-\w/.]+)`", text):
        if not (ROOT / name).exists():
            missing.append(name)
    assert missing == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
