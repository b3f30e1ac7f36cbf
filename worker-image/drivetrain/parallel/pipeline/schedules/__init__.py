"""Pipeline schedules: in which order does a stage work on its micro-batches? One file each; see table.py."""
