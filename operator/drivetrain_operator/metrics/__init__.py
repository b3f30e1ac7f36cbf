"""What the operator tells Prometheus: job gauges computed at scrape time, and counters that name no job."""
