"""What goes wrong here.

AgentError
├── NvmlMissing     no NVML library, or none that starts
├── NvmlError       the library refused one call
└── JournalError    what was changed cannot be written down, so nothing may be changed
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of them all."""


class NvmlMissing(AgentError):
    """This node has no NVIDIA driver, or it does not work."""


class NvmlError(AgentError):
    """`code` is NVML's own."""

    def __init__(self, call: str, code: int, text: str) -> None:
        super().__init__(f"{call}: {text} ({code})")
        self.code = code


class JournalError(AgentError):
    """The message names the file."""


__all__ = ["AgentError", "JournalError", "NvmlError", "NvmlMissing"]
