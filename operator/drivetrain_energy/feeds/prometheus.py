"""A query to Prometheus: what an exporter in the cluster, or at home, has measured (`/api/v1/query_range`)."""

from __future__ import annotations

from typing import Any

from drivetrain_energy.feeds.adapter import Ports, get, joined
from drivetrain_energy.feeds.errors import Mismatch, Unreadable
from drivetrain_energy.feeds.reached import asking
from drivetrain_energy.feeds.reading import Point, Reading, items, mapping
from drivetrain_energy.feeds.values import number, within
from drivetrain_energy.settings.sources import Prometheus


class PrometheusFeed:
    """A history, in steps that begin at whole steps of the clock."""

    def __init__(self, settings: Prometheus, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports

    async def fetch(self, zone: str, now: float) -> Reading:
        given = self._settings
        step = given.step_minutes * 60
        end = int(now) // step * step
        params = {
            "query": given.query.replace("$zone", given.called(zone)),
            "start": str(end - given.hours * 3600),
            "end": str(end),
            "step": str(step),
        }
        by, url = asking(given, self._ports.secrets), joined(given.base_url, "api/v1/query_range")
        told = await get(self._ports.http, url, params, now, by.headers, ca=by.ca)
        found = mapping(told.found, "the answer")
        if found.get("status") != "success":
            raise Unreadable(f"the query fails: {str(found.get('error') or 'no status')[:200]}")
        data = mapping(found.get("data"), "data")
        series = items(data.get("result"), "result")
        if data.get("resultType") != "matrix":
            raise Unreadable("the query's result is no matrix")
        if len(series) > 1:
            raise Mismatch(f"the query has {len(series)} series for {zone}, not one: sum or select in it")
        pairs = items(mapping(series[0], "a series").get("values"), "values") if series else []
        return Reading(
            tuple(point for pair in pairs if (point := _point(pair, step, given.multiply_by)) is not None),
            forecast=False,
            skew=told.skew,
            zero_is_missing=given.measure == "average",
            low_is_wrong=given.measure == "average",
        )


def _point(pair: Any, step: int, factor: float) -> Point | None:
    """A sample holds for the step that it ends."""
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    at, value = within(number(pair[0])), number(pair[1])
    if at is None:
        return None
    return Point(at - step, None if value is None else number(value * factor), at)


__all__ = ["PrometheusFeed"]
