"""`drivetrain`, also as `kubectl drivetrain`: run a script as a job, follow it, ask why, and try it all on one machine.

A client of the API server like any other: it asks for nothing that `kubectl` could not ask for. `main` reads arguments;
`pack`, `reasons` and `lines` are pure; the others talk to people, processes and the API server.
"""
