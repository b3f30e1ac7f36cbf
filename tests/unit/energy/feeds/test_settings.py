"""energy.yaml: what is read of it, and that each error names its field."""

from __future__ import annotations

from typing import Final

import pytest

from drivetrain_energy.settings import EnergySettings, SettingsError, read

WHOLE = """
sources:
  - {name: de, provider: electricityMaps, zones: [DE, FR], tokenFile: electricity-maps}
  - {name: gb, provider: neso, zones: [GB, GB-LONDON], names: {GB-LONDON: "13"}}
  - {name: ca, provider: wattTime, zones: [CAISO_NORTH], usernameFile: u, passwordFile: p}
  - {name: sdk, provider: carbonAwareSdk, zones: [westeurope], measure: marginal, baseURL: "http://sdk.carbon:8080"}
  - {name: keda, provider: carbonAwareConfigMap, zones: [westeurope], measure: average}
  - {name: file, provider: trace, zones: [DE], configMap: trace, timeZone: Europe/Berlin}
  - {name: home, provider: prometheus, zones: [DE], baseURL: "http://prometheus:9090", query: "g{z='$zone'}"}
  - {name: spot, provider: energyCharts, zones: [DE-LU]}
  - {name: grid, provider: openADR, measure: limit, zones: [hall], baseURL: "https://vtn/openadr3/3.0.1",
     clientIDFile: id, clientSecretFile: secret, simple: [1, 0.75, 0.5, 0.25]}
tariffs:
  - {name: night, currency: EUR, timeZone: Europe/Berlin, perKWh: 0.31,
     windows: [{from: "22:00", to: "06:00", perKWh: 0.22, days: [mon, tue, wed, thu, fri]}]}
  - {name: day-ahead, source: spot, zone: DE-LU}
powerDomains:
  - {name: hall-1, nodeSelector: {room: hall-1}, zone: DE, pue: 1.3, watts: 12000, maxTemperatureC: 85,
     embodiedKg: 1400, lifespanYears: 5, limitFrom: grid,
     tiers: [{name: research, keep: 0.5, suspend: true, namespaces: [research]}, {name: rest, keep: 0.9}]}
means: [{zone: westeurope, gramsPerKWh: 268, year: 2024, source: CBS}]
polling: {minutes: 30, staleMinutes: 120}
joules:
  - {name: gpus, provider: prometheus, baseURL: "http://prometheus:9090", tokenFile: t, dcgm: {}, lookSeconds: 60}
  - {name: nodes, provider: prometheus, baseURL: "http://thanos:9090", kepler: {exports: containers}}
"""


def test_all_of_it_is_read() -> None:
    found = read(WHOLE)
    assert [source.provider for source in found.sources] == [
        "electricityMaps", "neso", "wattTime", "carbonAwareSdk", "carbonAwareConfigMap", "trace", "prometheus",
        "energyCharts", "openADR",
    ]  # fmt: skip
    assert found.sources[1].called("GB-LONDON") == "13"
    assert found.tariffs[0].windows[0].days == ("mon", "tue", "wed", "thu", "fri")
    assert found.power_domains[0].tiers[0].keep == 0.5
    assert found.polling.minutes == 30
    assert read(WHOLE) == found, "what has not changed is equal"


@pytest.mark.parametrize("text", ["", "# nothing yet", "{}"])
def test_nothing_is_all_defaults(text: str) -> None:
    assert read(text) == EnergySettings()


EM = "name: a, provider: electricityMaps, zones: [DE], tokenFile: t"
JOULES: Final = "joules: [{{name: a, provider: prometheus, baseURL: '{}://p', kepler: {{}}, {}}}]"
REFUSED = {
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p'}]": "joules[0]: dcgm or kepler is needed",
    "joules: [{name: a, provider: thanos, baseURL: 'http://p', dcgm: {}}]": "joules[0].provider: ",
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p', dcgm: true}]": "joules[0].dcgm: ",
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p', dcgm: {metric: 'a{'}}]": "joules[0].dcgm.metric: ",
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p', dcgm: {podLabel: pod}}]":
        "joules[0].dcgm: podLabel and namespaceLabel belong together",
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p', kepler: {exports: nodes}}]":
        "joules[0].kepler.exports: ",
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p', kepler: {}, lookSeconds: 1}]":
        "joules[0].lookSeconds: ",
    JOULES.format("http", "caFile: ca"): "joules[0]: caFile is for a baseURL that begins with https://",
    JOULES.format("https", "caFile: ../ca"): "joules[0].caFile: ",
    JOULES.format("https", "headers: {'X Y': a}"): "joules[0].headers",
    JOULES.format("https", "headers: {'X:Y': a}"): "joules[0].headers",
    JOULES.format("https", 'headers: {"X-A\\r\\nB": a}'): "joules[0].headers",
    JOULES.format("https", 'headers: {X-Scope-OrgID: "a\\nCookie: b"}'): "joules[0].headers.X-Scope-OrgID: ",
    JOULES.format("https", 'headers: {X-Scope-OrgID: "a\\n"}'): "joules[0].headers.X-Scope-OrgID: ",
    JOULES.format("https", "headers: {X-Scope-OrgID: ''}"): "joules[0].headers.X-Scope-OrgID: ",
    JOULES.format("https", "headers: {X-Scope-OrgID: 'é'}"): "joules[0].headers.X-Scope-OrgID: ",
    JOULES.format("https", "headers: {Host: a}"): "joules[0]: headers, headerFiles: host is not for settings",
    JOULES.format("https", "headers: {Authorization: Basic hidden}"): "joules[0]: headers: authorization is secret",
    JOULES.format("https", "headers: {X-A: a}, headerFiles: {x-a: f}"): "headers, headerFiles: x-a stands there twice",
    JOULES.format("https", "tokenFile: t, headerFiles: {Authorization: f}"): "tokenFile, headerFiles: only one",
    JOULES.format("https", "headerFiles: {X-A: ../f}"): "joules[0].headerFiles.X-A: ",
    "sources: [{name: a, provider: prometheus, zones: [x], baseURL: 'http://p', query: q, headers: {Host: a}}]":
        "sources[0]: headers, headerFiles: host",
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p', dcgm: {}},"
    " {name: b, provider: prometheus, baseURL: 'http://q', dcgm: {}}]": "joules: only one of them can have dcgm",
    "sources: [{name: a, provider: neso, zones: [GB]}]\n"
    "joules: [{name: a, provider: prometheus, baseURL: 'http://p', dcgm: {}}]": "joules[0]: a source is called a, too",
    "sources: [{name: a, provider: neso, zones: []}]": "sources[0].zones: ",
    "sources: [{name: a, provider: neso}]": "sources[0].zones: ",
    "sources: [{name: a, provider: nezo, zones: [GB]}]": "sources[0]: Input tag 'nezo'",
    "sources: [{name: a, provider: neso, zones: [GB], zone: GB}]": "sources[0].zone: ",
    "sources: [{name: a, provider: neso, zones: [GB], measure: marginal}]": "sources[0].measure: ",
    "sources: [{name: A b, provider: neso, zones: [GB]}]": "sources[0].name: ",
    "sources: [{name: a, provider: electricityMaps, zones: [DE]}]": "sources[0].tokenFile: ",
    f"sources: [{{{EM}, tokenFile: ../x}}]": "tokenFile stands twice",
    "sources: [{name: a, provider: electricityMaps, zones: [DE], tokenFile: ../x}]": "sources[0].tokenFile: ",
    "sources: [{name: a, provider: electricityMaps, zones: [DE], tokenFile: ..}]": "sources[0].tokenFile: ",
    f"sources: [{{{EM}, baseURL: 'https://me:pw@api'}}]": "sources[0].baseURL: ",
    f"sources: [{{{EM}, baseURL: 'https://api/?token=1'}}]": "sources[0].baseURL: ",
    f"sources: [{{{EM}, baseURL: 'file:///etc/passwd'}}]": "sources[0].baseURL: ",
    f"sources: [{{{EM}}}, {{{EM}}}]": "sources[1]: a stands there already",
    "sources: [{name: a, provider: trace, zones: [DE]}]": "sources[0]: either file or configMap",
    "sources: [{name: a, provider: trace, zones: [DE], file: a, measure: price}]": "sources[0]: currency",
    "sources: [{name: a, provider: trace, zones: [DE], file: a, timeZone: CEST}]": "sources[0].timeZone: ",
    "sources: [{name: a, provider: openADR, measure: price, zones: [x], baseURL: 'http://v'}]": "sources[0]: currency",
    "sources: [{name: a, provider: openADR, measure: limit, zones: [x], baseURL: 'http://v', clientIDFile: i}]":
        "sources[0]: clientIDFile and clientSecretFile",
    "sources: [{name: a, provider: prometheus, zones: [x], baseURL: 'http://p', query: q, hours: 200, stepMinutes: 1}]":
        "sources[0]: hours: ",
    "tariffs: [{name: a}]": "tariffs[0]: perKWh and currency",
    "tariffs: [{name: a, currency: EUR, perKWh: .inf}]": "tariffs[0].perKWh: ",
    "tariffs: [{name: a, currency: euro, perKWh: 1}]": "tariffs[0].currency: ",
    "tariffs: [{name: a, currency: EUR, perKWh: 1, windows: [{from: '24:00', to: '06:00', perKWh: 1}]}]":
        "tariffs[0].windows[0].from: ",
    "tariffs: [{name: a, source: nobody, zone: DE}]": "tariffs[0].source: no source nobody",
    "powerDomains: [{name: a, nodeSelector: {}, zone: DE}]": "powerDomains[0].nodeSelector: ",
    "powerDomains: [{name: a, nodeSelector: {a: b}, zone: DE, pue: 0.9}]": "powerDomains[0].pue: ",
    "powerDomains: [{name: a, nodeSelector: {a: b}, zone: DE, embodiedKg: 1}]": "powerDomains[0]: embodiedKg and",
    "powerDomains: [{name: a, nodeSelector: {a: b}, zone: DE, limitFrom: x}]": "powerDomains[0]: watts is needed",
    "placement:": "placement: is empty: leave it out, or write {}",
    "polling:\nplacement: {}": "polling: is empty",
    "powerDomains: [{name: a, nodeSelector: {a: b}, zone: DE, watts: }]": "powerDomains[0].watts: is empty",
    "powerDomains: [{name: a, nodeSelector: {a: }, zone: DE}]":
        'powerDomains[0].nodeSelector.a: Input should be a valid string; write "" for',
    "placement: {weight: 0}": "placement.weight: ",
    "placement: {weight: 101}": "placement.weight: ",
    "placement: {topologyKey: a b}": "placement.topologyKey: ",
    "placement: {maxTemperatureC: 20}": "placement.maxTemperatureC: ",
    "placement: {efficiency: [{nodeSelector: {}, energy: 1}]}": "placement.efficiency[0].nodeSelector: ",
    "placement: {efficiency: [{nodeSelector: {a: b}, energy: 0}]}": "placement.efficiency[0].energy: ",
    "placement: {spread: true}": "placement.spread: ",
    "polling: {minutes: 1}": "polling.minutes: ",
    "polling: {minutes: '15'}": "polling.minutes: ",
    "source: []": "source: ",
    "- a": "",
    "a: [": "no YAML: ",
    "a: &a [1]\nb: *a": "no YAML: aliases are not read",
    "sources: []\nsources: []": "no YAML: sources stands twice",
    "[" * 5000: "no YAML: ",
    "a" * (1 << 21): "more than",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:60])
def test_what_is_refused_and_with_which_field(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert REFUSED[text] in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert "hidden" not in str(caught.value)


def test_many_errors_are_counted() -> None:
    with pytest.raises(SettingsError, match="and 40 more"):
        read("\n".join(f"a{n}: 1" for n in range(50)))


@pytest.mark.parametrize(
    ("domain", "field"),
    [
        ('{name: a, nodeSelector: {hall: "1"}, zone: NO}', "powerDomains[0].zone"),
        ("{name: a, nodeSelector: {hall: 1}, zone: DE}", "powerDomains[0].nodeSelector.hall"),
        ("{name: a, nodeSelector: {hall: yes}, zone: DE}", "powerDomains[0].nodeSelector.hall"),
    ],
)
def test_what_yaml_makes_no_text_of_is_to_be_put_in_quotes(domain: str, field: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(f"powerDomains: [{domain}]")
    assert str(refused.value).startswith(f"{field}: ")
    assert "in quotes" in str(refused.value)
