"""When, with how many workers and at how many watts does a job run? PURE: it reads no clock, no file and no network.

The operator and the CLI ask; this knows neither. Times are seconds since the epoch (UTC), energy joules, power watts,
work steps, carbon grams. `signals` say what a kilowatt-hour is worth, `job` plans one job by them and `fleet` many
that share nodes, `power` has domains' watts, heat and places, `accounts` what was drawn in the end. `settings` reads
energy.yaml. What fetches signals is in `feeds`, the one room here that talks to the outside.
"""
