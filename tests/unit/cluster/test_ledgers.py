"""Ledgers are found while kubelets remove pods."""

import os
from pathlib import Path

import pytest

from e2e.cluster import ledgers

JOB = "1b0a"
TMP = "volumes/kubernetes.io~empty-dir/tmp"


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ledgers, "run_dir", lambda: tmp_path)
    return tmp_path / "nodes"


def written(node: Path, pod: str) -> Path:
    folder = node / "kubelet" / "pods" / pod / TMP
    folder.mkdir(parents=True)
    file = folder / f"ledger-{JOB}-1.jsonl"
    file.touch()
    return file


@pytest.mark.parametrize("gone", [f"node1/kubelet/pods/b/{TMP}", "node1/kubelet/pods"])
def test_a_folder_that_goes_before_its_own_scan_hides_no_other(
    nodes: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    files = {written(nodes / node, pod) for node, pod in [("node1", "a"), ("node1", "b"), ("node2", "c")]}
    scandir = os.scandir

    def scanned(path: str) -> object:
        if Path(path) == nodes / gone:
            (nodes / gone).rename(nodes.with_name("gone"))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scanned)
    left = {file for file in files if nodes / gone not in file.parents}
    assert set(ledgers.ledgers(JOB)) == left
