"""Which places for snapshots, and which ways to them, go together? Part of rules.py."""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import STORES
from drivetrain_api.rule import Rule
from drivetrain_api.snapshots import Storage

_PATH: Final = Storage.model_fields["path"].default

SNAPSHOT_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="snapshots-have-a-place",
        path="spec.snapshots.storage",
        cel="[has(self.url), has(self.persistentVolumeClaim), has(self.path) && self.path.startsWith('/')]"
        ".filter(each, each).size() == 1",
        message="spec.snapshots.storage must have exactly one of url, persistentVolumeClaim and an absolute path "
        "(/...)",
        check=lambda self, _: (
            ["url" in self, "persistentVolumeClaim" in self, self["path"].startswith("/")].count(True) == 1
        ),
    ),
    Rule(
        name="snapshots-url-has-its-path",
        path="spec.snapshots.storage",
        cel=f"!has(self.url) || !has(self.path) || self.path == '{_PATH}'",
        message="spec.snapshots.storage.path must not be set with spec.snapshots.storage.url: the folder is in the url",
        check=lambda self, _: "url" not in self or self["path"] == _PATH,
    ),
    Rule(
        name="snapshots-folders-need-no-secret",
        path="spec.snapshots.storage",
        cel="has(self.url) || (!has(self.secretName) && !has(self.options))",
        message="spec.snapshots.storage.secretName and spec.snapshots.storage.options are for "
        "spec.snapshots.storage.url only",
        check=lambda self, _: "url" in self or not ("secretName" in self or "options" in self),
    ),
    Rule(
        name="snapshots-options-of-the-store",
        path="spec.snapshots.storage",
        cel="!has(self.url) || !has(self.options) || (self.url.startsWith('s3:') ? !has(self.options.user) : "
        "!has(self.options.endpoint) && !has(self.options.region) && !has(self.options.addressing))",
        message="spec.snapshots.storage.options: endpoint, region and addressing are for s3:// only, user is for "
        "webhdfs:// only",
        check=lambda self, _: (
            "url" not in self or set(self.get("options", {})) <= set(STORES[self["url"].partition(":")[0]])
        ),
    ),
    Rule(
        name="restore-from-needs-snapshots",
        path="spec",
        cel="!has(self.restoreFrom) || has(self.snapshots)",
        message="spec.restoreFrom needs spec.snapshots: the other job's lie in the same storage as this one's own",
        check=lambda self, _: "restoreFrom" not in self or "snapshots" in self,
    ),
)
