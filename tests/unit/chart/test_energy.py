"""energy.yaml as the chart writes it, read by the operator's own reader; and what it may read beside it."""

from __future__ import annotations

from typing import Any

from drivetrain_energy.settings import read
from drivetrain_operator.settings import parse
from harness.helm import Objects, container, deployment, rendered

SETTINGS: dict[str, Any] = {
    "sources": [
        {"name": "gb", "provider": "neso", "zones": ["GB", "GB-13"], "names": {"GB-13": "13"}},
        {"name": "de", "provider": "electricityMaps", "zones": ["DE"], "tokenFile": "maps"},
        {"name": "keda", "provider": "carbonAwareConfigMap", "zones": ["NO"], "measure": "average"},
        {"name": "file", "provider": "trace", "zones": ["NO"], "configMap": "grid"},
    ],
    "tariffs": [
        {
            "name": "night", "currency": "EUR", "timeZone": "Europe/Berlin", "perKWh": 0.3,
            "windows": [{"from": "22:00", "to": "06:00", "perKWh": 0.2, "days": ["mon", "tue"]}],
        }
    ],
    "powerDomains": [{"name": "hall-1", "nodeSelector": {"room": "1"}, "zone": "DE", "pue": 1.3, "watts": 1234567}],
    "polling": {"minutes": 30},
}  # fmt: skip


def roles(objects: Objects) -> dict[str, list[str]]:
    """ConfigMaps that it may read by the role of energy, by the role's key."""
    return {
        name: each["rules"][0]["resourceNames"]
        for (kind, name), each in objects.items()
        if kind == "Role" and name.endswith("drivetrain-operator-energy")
    }


def test_the_operator_reads_what_the_chart_writes() -> None:
    """Hours of the day stay text, numbers of regions too, and watts do not become 1.2e+06."""
    objects = rendered({"energy": {"settings": SETTINGS, "credentials": {"secretName": "keys"}}})
    found = read(objects["ConfigMap", "drivetrain-energy"]["data"]["energy.yaml"])
    assert (found.tariffs[0].windows[0].since, found.sources[0].called("GB-13")) == ("22:00", "13")
    assert (found.power_domains[0].watts, found.polling.minutes) == (1234567.0, 30)
    settings = parse(container(objects)["args"], {"POD_IP": "10.0.0.1", "POD_NAME": "p", "POD_NAMESPACE": "n"})
    mounts = {each["name"]: each["mountPath"] for each in container(objects)["volumeMounts"]}
    assert str(settings.energy_settings) == f"{mounts['energy']}/energy.yaml"
    assert settings.energy_credentials == mounts["energy-credentials"]
    assert settings.power_limits == "drivetrain-power-limits"
    volumes = {each["name"]: each for each in deployment(objects)["spec"]["volumes"]}
    assert volumes["energy"]["configMap"]["name"] == "drivetrain-energy"


def test_traces_are_mounted_where_the_operator_looks() -> None:
    objects = rendered({"energy": {"settings": SETTINGS, "traces": {"configMap": "grid"}}})
    settings = parse(container(objects)["args"], {"POD_IP": "10.0.0.1", "POD_NAME": "p", "POD_NAMESPACE": "n"})
    mounts = {each["name"]: each["mountPath"] for each in container(objects)["volumeMounts"]}
    assert settings.energy_traces == mounts["energy-traces"]


def test_without_settings_there_is_nothing_of_it() -> None:
    objects = rendered()
    assert ("ConfigMap", "drivetrain-energy") not in objects
    assert "energy" not in str(deployment(objects))
    assert roles(objects) == {}


def test_nodes_are_read_only_where_workers_are_steered_and_only_by_an_operator_of_all_namespaces() -> None:
    name = "drivetrain-operator-drivetrain-system-places"
    on = {"energy": {"settings": {**SETTINGS, "placement": {}}}}
    for values, there in (
        ({"energy": {"settings": SETTINGS}}, False),
        (on, True),
        ({**on, "watchNamespaces": ["team"]}, False),
        ({**on, "rbac": {"create": False}}, False),
    ):
        objects = rendered(values)
        assert [kind for kind, each in objects if each == name] == ["ClusterRole", "ClusterRoleBinding"] * there
    found = read(rendered(on)["ConfigMap", "drivetrain-energy"]["data"]["energy.yaml"])
    assert found.placement is not None


def test_in_a_few_namespaces_it_may_read_the_config_maps_that_sources_name() -> None:
    """The ClusterRole of an operator of all namespaces reads ConfigMaps anyhow."""
    values = {"energy": {"settings": SETTINGS}}
    assert roles(rendered(values)) == {}
    assert roles(rendered({**values, "watchNamespaces": ["team"]})) == {
        "drivetrain-operator-energy": ["drivetrain-power-limits", "grid"],
        "kube-system/drivetrain-operator-energy": ["carbon-intensity"],
    }
    assert roles(rendered({**values, "watchNamespaces": ["team"], "rbac": {"create": False}})) == {}
