"""Jobs that are tracked by the real libraries, with deaths in the middle: `make test-trackers`."""
