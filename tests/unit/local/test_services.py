"""Each Service has an address of its own: first those that nobody had, then those that have been free for longest."""

from __future__ import annotations

import pytest

from drivetrain_local.address import RESERVED_HOSTS
from drivetrain_local.apiserver.errors import ApiError
from drivetrain_local.apiserver.kinds.services import Services
from drivetrain_local.objects import Obj

FIRST = RESERVED_HOSTS + 1
"""Of a range of which the plane keeps the first addresses."""


def created(services: Services, address: str = "") -> Obj:
    obj: Obj = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}
    if address:
        obj["spec"]["clusterIP"] = address
    services.prepare_create(obj)
    return obj


def last_of(obj: Obj) -> int:
    """The last number of its address."""
    return int(obj["spec"]["clusterIP"].rpartition(".")[2])


def test_they_are_given_in_their_order_and_used_again_last() -> None:
    services = Services("127.9.0.0/28")  # up to .14
    begun = [created(services) for _ in range(2)]
    assert [last_of(each) for each in begun] == [FIRST, FIRST + 1]
    for each in reversed(begun):
        services.released(each)
    rest = [last_of(created(services)) for _ in range(14 - FIRST + 1)]
    assert rest == [*range(FIRST + 2, 15), FIRST + 1, FIRST]
    with pytest.raises(ApiError, match=r"service range 127\.9\.0\.0/28 is full"):
        created(services)


def test_one_that_was_asked_for_by_name_is_given_to_nobody_else() -> None:
    services = Services("127.9.0.0/28")
    asked = created(services, f"127.9.0.{FIRST + 1}")
    assert [last_of(created(services)) for _ in range(2)] == [FIRST, FIRST + 2]
    with pytest.raises(ApiError, match="provided IP is already allocated"):
        created(services, f"127.9.0.{FIRST + 1}")
    services.released(asked)
    again = created(services, f"127.9.0.{FIRST + 1}")
    rest = [last_of(created(services)) for _ in range(14 - FIRST - 2)]
    assert last_of(again) not in rest
    with pytest.raises(ApiError, match="is full"):
        created(services)
