"""Lets Python in a worker pod find the runtime that was brought there: our packages are beside this file, and what they
need from others comes last, after all that the image has. Then the image's own sitecustomize, if it has one.

Python imports it at its start, because this folder is on PYTHONPATH. It has to be harmless in whatever Python a script
starts, however old.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_LAST = os.path.join(os.path.dirname(_HERE), "last")
if sys.version_info >= (3, 10) and _LAST not in sys.path:
    sys.path.append(_LAST)

for _folder in list(sys.path):
    _file = os.path.join(_folder or ".", "sitecustomize.py")
    if os.path.abspath(_folder or ".") != _HERE and os.path.isfile(_file):
        with open(_file, "rb") as _opened:
            exec(compile(_opened.read(), _file, "exec"), dict(globals(), __file__=_file))
        break
