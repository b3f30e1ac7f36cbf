"""May a flag stand between two words of a command, as in `snapshots JOB -n NAMESPACE verify`?

argparse settles an optional word as soon as the first ones come, so that it would be refused behind a flag. Its own
answer, `parse_intermixed_args`, does not reach subcommands; this is that answer for them.
"""

from __future__ import annotations

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """Of a subcommand. `flags_between` must not be set where the rest of the line is another program's."""

    flags_between = False
    _inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As before; argparse calls it for a subcommand's part of the line."""
        if not self.flags_between or self._inside:
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


def allow_flags_between(parser: argparse.ArgumentParser) -> None:
    """For this subcommand."""
    assert isinstance(parser, Parser)
    parser.flags_between = True
