"""Was the runtime brought into an image that was not made for Drivetrain (ADR 0047)? Then ranks are told where it is.

It lies in a folder of the pod's: `first` has our packages and comes before those of the image, so that launcher and
ranks are of one release; `last` has what those need from others and comes after, so that a script gets what its image
has. `launch.py` there has started this process, without the image's own packages.
"""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from drivetrain.launch import fit
from drivetrain.torchrun.choice import Choice
from drivetrain_api.runtime import RuntimeSpec

_FIRST: Final = Path(__file__).parents[2]


def here() -> bool:
    """Whether it was."""
    return (_FIRST.with_name("launch.py")).is_file() and _FIRST.with_name("last").is_dir()


def into(choice: Choice, spec: RuntimeSpec, environ: Mapping[str, str]) -> Choice:
    """The choice for ranks that find the runtime. Raises `UnfitError` if the image has not what they need."""
    environment = {**environ, **choice.environment}
    notes = [choice.note] if choice.note else []
    if choice.interpreter:
        found = fit.look(choice.interpreter, environment)
        if found is None:
            notes.append(f"cannot find out which packages {choice.interpreter[0]} has; going on")
        else:
            fit.check(found, spec, stock=choice.stock)
            notes.append(f"the operator's runtime runs in {found.summary()}")
            if spec.storage is not None and spec.storage.url and found.python == sys.version_info[:3]:
                # What copies to a URL runs in this process, and may need what only the image has.
                sys.path += [each for each in found.path if each not in sys.path]
    changes = {**_home(environment), **choice.environment}
    path = os.pathsep.join(part for part in (str(_FIRST), environment.get("PYTHONPATH", "")) if part)
    return replace(choice, environment={**changes, "PYTHONPATH": path}, note="; ".join(notes))


def _home(environ: Mapping[str, str]) -> dict[str, str]:
    """Images are made for root or a user of their own, and their pods run as another, whom they do not know: torch asks
    for a user's name, and torch, triton and Hugging Face write below the home folder."""
    found = {}
    if not any(environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            found["USER"] = "drivetrain"
    home = environ.get("HOME")
    if not home or not os.access(home, os.W_OK | os.X_OK):
        found["HOME"] = tempfile.gettempdir()
    return found
