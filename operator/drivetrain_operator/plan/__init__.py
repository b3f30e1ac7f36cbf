"""PURE: what should be done for one job. `plan(view) -> Plan`; no I/O, no clock, no log."""
