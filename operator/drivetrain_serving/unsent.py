"""What of an answer is still here?"""

from __future__ import annotations

import asyncio


def unsent(transport: asyncio.Transport) -> int:
    """Bytes that the kernel did not take yet. Under TLS most of them lie below, where no limit of asyncio's reaches: a
    large message counts as sent as soon as it is encrypted."""
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    size: int = transport.get_write_buffer_size() + (below.get_write_buffer_size() if below is not None else 0)
    return size
