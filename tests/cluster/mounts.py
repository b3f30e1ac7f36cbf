"""What is mounted, as the machine's own mount namespace sees it."""

from pathlib import Path


def mount_points() -> list[Path]:
    """Every mount point, in the order of mounting. (`Path.is_mount` misses folders that are mounted on themselves.)"""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].replace("\\040", " ")) for line in lines]
