"""Who knows what a kilowatt-hour emits, or costs? The one room of drivetrain_energy that talks to the outside.

Adapters (one file a provider) make readings of answers, `judge` makes signals of readings, `Feeds` keeps them.
"""

from drivetrain_energy.feeds.adapter import Ports
from drivetrain_energy.feeds.feeds import Feeds, Limits
from drivetrain_energy.feeds.openadr import Limit
from drivetrain_energy.feeds.transport import AiohttpHttp, ConfigMaps, Folder, Http, MountedFolder

__all__ = ["AiohttpHttp", "ConfigMaps", "Feeds", "Folder", "Http", "Limit", "Limits", "MountedFolder", "Ports"]
