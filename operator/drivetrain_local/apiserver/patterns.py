"""What does a pattern of a schema or of a rule match? RE2's language, in Python."""

from __future__ import annotations

import functools
import re


@functools.lru_cache(512)
def pattern_of(text: str) -> re.Pattern[str]:
    """RE2 and Python agree on what our patterns use, but for `$`, which must not match before a newline."""
    return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", text))
