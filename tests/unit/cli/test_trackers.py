"""Is a job refused that cannot find the packages of its trackers, where that is known before it is made?"""

from __future__ import annotations

from pathlib import Path

import pytest

from drivetrain_cli import run
from drivetrain_cli.errors import UsageError
from drivetrain_cli.main import make_parser
from drivetrain_cli.pack import Wish
from drivetrain_cli.trackers import refuse_without_packages

TENSORBOARD = ["--tensorboard", "/runs"]
SQLITE = ["--mlflow", "sqlite:////data/a.db"]
CASES = [
    # name, flags, modules that are there, what is told
    ("no tracker", [], "", None),
    ("there", TENSORBOARD, "tensorboard", None),
    ("not there", TENSORBOARD, "", "--tensorboard: on the embedded plane jobs run in this Python"),
    ("the rest of one", SQLITE, "mlflow sqlalchemy", "--mlflow: .* has no alembic: pip install alembic there"),
    ("a server", ["--mlflow", "http://a"], "mlflow", None),
    ("both", [*TENSORBOARD, *SQLITE], "", "--tensorboard, --mlflow: .* has no tensorboard and no mlflow-skinny and no"),
    ("installed first", [*TENSORBOARD, "--requirements", "requirements.txt"], "", None),
    ("found elsewhere", [*TENSORBOARD, "--env", "PYTHONPATH=/packages"], "", None),
    ("W&B needs none", ["--wandb", "digits", "--wandb-folder", "/runs"], "", None),
]


def wished(folder: Path, flags: list[str]) -> Wish:
    (folder / "train.py").write_text("import drivetrain\n")
    (folder / "requirements.txt").write_text("tensorboard\n")
    flags = [str(folder / each) if each == "requirements.txt" else each for each in flags]
    return run.wished(make_parser().parse_args(["run", *flags, str(folder / "train.py")]))


@pytest.mark.parametrize(("name", "flags", "there", "told"), CASES, ids=[each[0] for each in CASES])
def test_packages_of_trackers(name: str, flags: list[str], there: str, told: str | None, tmp_path: Path) -> None:
    wish = wished(tmp_path, flags)
    if told is None:
        refuse_without_packages(wish, there.split().__contains__)
        return
    with pytest.raises(UsageError, match=told):
        refuse_without_packages(wish, there.split().__contains__)


def test_this_python_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorboard.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    refuse_without_packages(wished(tmp_path, TENSORBOARD))
