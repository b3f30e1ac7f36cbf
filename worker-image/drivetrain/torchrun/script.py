"""A fork of the keeper becomes the script: as `python` would have started it, with what is imported already."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import types
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Final

from drivetrain import say
from drivetrain.torchrun.program import Program

_OURS: Final = str(Path(__file__).parent) + os.sep


def run(program: Program, environment: Mapping[str, str]) -> None:
    """Returns when the script's last line has run; what it raises goes through, to the interpreter's own way out."""
    os.environ.update(environment)
    for name in [name for name in os.environ if name in _OF_RANKS]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if program.kind == "executable":
        _execute(program)
    sys.excepthook = _tell
    sys.argv = [program.target, *program.arguments]
    match program.kind:
        case "module":
            _first_on_path(str(Path.cwd()))
            runpy.run_module(program.target, run_name="__main__", alter_sys=True)
        case "code":
            sys.argv[0] = "-c"
            _first_on_path("")
            _execute_in_main(compile(program.target, "<string>", "exec"), None)
        case _:
            _run_file(program.target)


_OF_RANKS: Final = ("DRIVETRAIN_SPARE_LEVEL",)


def _execute(program: Program) -> None:
    try:
        os.execvp(program.target, [program.target, *program.arguments])
    except OSError as error:
        say.note(f"cannot start {program.target!r}: {error.strerror} (spec.command)", level="error")
        sys.stderr.flush()
        os._exit(127)


def _run_file(name: str) -> None:
    path = Path(name)
    if path.is_dir() or path.suffix in (".zip", ".pyz"):
        runpy.run_path(name, run_name="__main__")
        return
    try:
        text = path.read_bytes()
    except OSError as error:
        print(f"{sys.executable}: can't open file {name!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    _first_on_path(str(path.resolve().parent))
    _execute_in_main(compile(text, name, "exec"), name)


def _first_on_path(folder: str) -> None:
    """As `python` puts it there, unless it was told not to put anything; `keep.py` has left nothing of its own."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path.insert(0, folder)


def _execute_in_main(code: types.CodeType, file: str | None) -> None:
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if file is not None:
        main.__file__ = file
        main.__dict__["__cached__"] = None
        main.__loader__ = SourceFileLoader("__main__", file)
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def _tell(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
    """An error as the script's author knows it: without the frames that are ours."""
    while traceback is not None and _is_ours(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) or file in ("<frozen runpy>", runpy.__file__)
