"""Which places, and which ways to them, go together? Of each field that is a `Storage`. Part of rules.py."""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import STORES
from drivetrain_api.rule import Rule
from drivetrain_api.storage import Storage

_PATH: Final = Storage.model_fields["path"].default


def storage_rules(path: str, of: str) -> tuple[Rule, ...]:
    """Rules of the field at this path; their names begin with `of`."""
    return (
        Rule(
            name=f"{of}-have-a-place",
            path=path,
            cel="[has(self.url), has(self.persistentVolumeClaim), has(self.path) && self.path.startsWith('/')]"
            ".filter(each, each).size() == 1",
            message=f"{path} must have exactly one of url, persistentVolumeClaim and an absolute path (/...)",
            check=lambda self, _: (
                ["url" in self, "persistentVolumeClaim" in self, self["path"].startswith("/")].count(True) == 1
            ),
        ),
        Rule(
            name=f"{of}-url-has-its-path",
            path=path,
            cel=f"!has(self.url) || !has(self.path) || self.path == '{_PATH}'",
            message=f"{path}.path must not be set with {path}.url: the folder is in the url",
            check=lambda self, _: "url" not in self or self["path"] == _PATH,
        ),
        Rule(
            name=f"{of}-folders-need-no-secret",
            path=path,
            cel="has(self.url) || (!has(self.secretName) && !has(self.options))",
            message=f"{path}.secretName and {path}.options are for {path}.url only",
            check=lambda self, _: "url" in self or not ("secretName" in self or "options" in self),
        ),
        Rule(
            name=f"{of}-options-of-the-store",
            path=path,
            cel="!has(self.url) || !has(self.options) || (self.url.startsWith('s3:') ? !has(self.options.user) : "
            "!has(self.options.endpoint) && !has(self.options.region) && !has(self.options.addressing))",
            message=f"{path}.options: endpoint, region and addressing are for s3:// only, user is for webhdfs:// only",
            check=lambda self, _: (
                "url" not in self or set(self.get("options", {})) <= set(STORES[self["url"].partition(":")[0]])
            ),
        ),
    )
