"""One OpenTelemetry trace for the life of a job: `life` says what happened, `otlp` writes it, `exporter` sends it."""
