"""A node's watts, joules and degrees for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drivetrain_nodeagent.node import Look

PREFIX: Final = "drivetrain_node"


class NodeMetrics(Collector):
    """Of the last look; nothing before the first."""

    def __init__(self, last: Callable[[], Look | None], failures: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._last, self._failures = last, failures
        self.registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Without samples."""
        return self._families(None)

    def collect(self) -> Iterator[Metric]:
        """The last look's."""
        return self._families(self._last())

    def _families(self, look: Look | None) -> Iterator[Metric]:
        devices = look.report.devices if look is not None else ()
        for name, text, values in (
            ("gpu_watts", "What the card draws", {d.uuid: d.watts for d in devices}),
            ("gpu_celsius", "How hot the card is", {d.uuid: d.celsius for d in devices}),
            (
                "gpu_cap_watts",
                "The power limit that is in force because of Drivetrain",
                {d.uuid: d.cap for d in devices},
            ),
            (
                "gpu_slowed",
                "1 while heat, or a brake of its board, keeps its clocks down",
                {d.uuid: float(d.slowed) for d in devices},
            ),
        ):
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["gpu"])
            for uuid, value in values.items():
                if value is not None:
                    gauge.add_metric([uuid], value)
            yield gauge
        for name, label, text, joules in (
            ("gpu_joules", "gpu", "Taken since the driver was loaded", look.gpu_joules if look else {}),
            (
                "host_joules",
                "zone",
                "Taken by processors and memory since the agent was started (RAPL)",
                look.host_joules if look else {},
            ),
        ):
            counter = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
            for key, total in joules.items():
                counter.add_metric([key], total)
            yield counter
        hottest = GaugeMetricFamily(f"{PREFIX}_host_celsius", "The hottest sensor of the node itself")
        if look is not None and look.report.host_celsius is not None:
            hottest.add_metric([], look.report.host_celsius)
        yield hottest
        yield GaugeMetricFamily(
            f"{PREFIX}_agent_failures",
            "Requests to the API server in a row that came to nothing",
            value=self._failures() if look else None,
        )


__all__ = ["NodeMetrics"]
