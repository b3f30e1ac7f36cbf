"""The life of a job: listed, looked at, scaled, suspended, resumed, deleted. `page` and `outlook` are pure."""
