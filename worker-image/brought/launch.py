"""Starts the launcher in a Python of the image, without anything of the image but that: `python -I -S launch.py --
COMMAND`. So neither PYTHONPATH, nor the working folder, nor a package that the image has in another version matters
to it."""

import os
import sys

UNFIT = 71
"""`drivetrain_api.exit_codes.ExitCode.UNFIT`, which may be what cannot be imported."""


def main() -> int:
    """Run the launcher; returns its exit code."""
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path += [os.path.join(folder, "first"), os.path.join(folder, "last")]
    try:
        from drivetrain.launch.main import main as launch
    except ImportError as error:
        number = ".".join(str(part) for part in sys.version_info[:3])
        print(
            f"drivetrain-launcher: spec.image does not fit: the operator's runtime has no build for Python {number} "
            f"({sys.implementation.cache_tag}, {os.uname().machine}) of this image: {error}",
            file=sys.stderr,
            flush=True,
        )
        return UNFIT
    return launch()


if __name__ == "__main__":
    sys.exit(main())
