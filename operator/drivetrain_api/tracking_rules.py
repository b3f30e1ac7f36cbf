"""Which addresses can MLflow write to? Part of rules.py: who is told in a rank is told as often as ranks start."""

from __future__ import annotations

from typing import Final

from drivetrain_api.rule import Rule

TRACKING_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="mlflow-writes-no-folders",
        path="spec.training.tracking.mlflow",
        cel="self.uri == 'databricks' || self.uri.startsWith('sqlite:') || "
        "(self.uri.contains('://') && !self.uri.startsWith('file:'))",
        message="spec.training.tracking.mlflow.uri must be a server's address (http://, https://), databricks, or "
        "sqlite:////folder/mlflow.db: MLflow writes no folders any more",
        check=lambda self, _: (
            self["uri"] == "databricks"
            or self["uri"].startswith("sqlite:")
            or ("://" in self["uri"] and not self["uri"].startswith("file:"))
        ),
    ),
)
