"""What can go wrong, as one tree. Every message names what to change, or the log that says more.

ClusterError
├── Unsuitable        this machine cannot run the cluster; raised before anything on it was changed
├── InUse             somebody else is using the cluster of this machine
├── CommandFailed     a program that we ran ended with an error
└── NotInTime         something did not become true before its deadline
"""


class ClusterError(Exception):
    """The cluster cannot do what was asked."""


class Unsuitable(ClusterError):
    """This machine cannot run the cluster."""


class InUse(ClusterError):
    """Somebody else is using the cluster of this machine."""


class CommandFailed(ClusterError):
    """A program ended with an error; the message carries its last lines."""


class NotInTime(ClusterError):
    """Something did not become true before its deadline."""
