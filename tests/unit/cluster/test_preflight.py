"""Which machines are refused, and why."""

import pytest

from cluster.preflight import clashes


@pytest.mark.parametrize(
    ("route", "refused"),
    [
        ({"dst": "default", "dev": "eth0"}, False),
        ({"dst": "192.168.1.0/24", "dev": "eth0"}, False),
        ({"dst": "10.0.0.0/8", "dev": "eth0"}, False),  # ours are more specific, and the rest of it stays reachable
        ({"dst": "10.77.0.0/24", "dev": "eth0"}, True),
        ({"dst": "10.78.40.0/24", "dev": "cni0"}, True),
        ({"dst": "10.96.0.1", "dev": "eth0"}, True),
        ({"dst": "10.77.0.9", "dev": "lo", "type": "local"}, True),
        ({"dst": "10.77.0.255", "dev": "eth0", "type": "broadcast"}, False),
    ],
)
def test_address_ranges_in_use_are_refused(route: dict[str, str], refused: bool) -> None:
    assert bool(list(clashes([route]))) is refused
