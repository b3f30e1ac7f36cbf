"""PURE: metrics as a table in Markdown, from the metrics themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric


def table(families: Iterable[Metric], labels: Mapping[str, tuple[str, ...]] | None = None) -> list[str]:
    """Lines. `labels`: names of labels by metric; without, there is no such column."""
    rows = ["| Metric | Type | Labels | Meaning |" if labels is not None else "| Metric | Type | Meaning |"]
    rows.append("|---|---|---|---|" if labels is not None else "|---|---|---|")
    for family in sorted(families, key=lambda f: f.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        cells = [f"`{name}`", family.type]
        if labels is not None:
            cells.append(", ".join(f"`{label}`" for label in labels.get(family.name, ())))
        rows.append(f"| {' | '.join([*cells, family.documentation])} |")
    return rows


def labels_of(registry: CollectorRegistry) -> dict[str, tuple[str, ...]]:
    """Label names by metric; a family without samples does not carry them, so they are asked of the metric."""
    found: dict[str, tuple[str, ...]] = {}
    for collector in registry._collector_to_names:  # the registry has no public way to list its collectors
        name, labels = getattr(collector, "_name", None), getattr(collector, "_labelnames", ())
        if name is not None:
            found[name] = tuple(labels)
    return found


def kept(registry: CollectorRegistry) -> list[Metric]:
    """What a registry has of our own, without those of the process."""
    return [family for family in registry.collect() if not family.name.startswith("process_")]
