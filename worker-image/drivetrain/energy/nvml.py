"""What do the GPUs of this pod draw? By NVIDIA's own library, which comes with the driver; called directly, so that no
package has to be in the user's image.

A container sees the devices that it was given, whole: of one that others share, each of them reads the whole power, so
its UUID goes along, and the coordinator divides. Parts of a device (MIG) have no counter: nothing is told of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from drivetrain.energy.counter import Counter
from drivetrain.energy.gain import Gain, Unreadable
from drivetrain_api.energy import WATTS_AT_MOST, Component, EnergySource

LIBRARY: Final = "libnvidia-ml.so.1"
_UUID_BYTES: Final = 96


class Device(Protocol):
    """One GPU. None: it does not tell, now or ever."""

    uuid: str

    def joules(self) -> float | None:
        """Its counter."""
        ...

    def watts(self) -> float | None:
        """What it draws now."""
        ...


@dataclass
class _Followed:
    device: Device
    counter: Counter = field(default_factory=lambda: Counter(WATTS_AT_MOST[Component.GPU]))
    held: float = 0.0
    """Power times time since the counter moved last: counted only if it proves to stand still."""
    counts: bool = True
    """Its counter is what is believed."""


class Gpus:
    """A source over the devices of this pod."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._followed = [_Followed(device) for device in devices]

    def read(self, passed: float) -> Iterator[Gain]:
        """One gain a device that drew."""
        for each in self._followed:
            source, joules = self._of(each, passed)
            if joules > 0:
                yield Gain(Component.GPU, source, joules, each.device.uuid)

    def _of(self, each: _Followed, passed: float) -> tuple[EnergySource, float]:
        watts = each.device.watts()
        drawn = min(max(0.0, watts or 0.0), WATTS_AT_MOST[Component.GPU]) * passed
        if not each.counts:
            return EnergySource.NVML_POWER, drawn
        now = each.device.joules()
        risen = each.counter.risen(now, passed)
        if now is not None and not each.counter.still:
            each.held = 0.0
            return EnergySource.NVML, risen
        each.held += drawn
        never = each.counter.last is None
        if (never and each.counter.unread > 0) or (each.counter.stands_still and each.held > 0):
            each.counts = False  # for good: two sources that take turns would count twice
            return EnergySource.NVML_POWER, each.held
        return EnergySource.NVML, 0.0


class _NvmlDevice:
    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle
        name = ctypes.create_string_buffer(_UUID_BYTES)
        _check(library.nvmlDeviceGetUUID(handle, name, ctypes.c_uint(_UUID_BYTES)))
        self.uuid = name.value.decode(errors="replace")

    def joules(self) -> float | None:
        return self._told("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())

    def watts(self) -> float | None:
        return self._told("nvmlDeviceGetPowerUsage", ctypes.c_uint())

    def _told(self, name: str, value: Any) -> float | None:
        """Both tell thousandths."""
        function: Callable[[Any, Any], int] | None = getattr(self._library, name, None)
        if function is None:
            return None  # drivers that are older than it
        return value.value / 1000 if function(self._handle, ctypes.byref(value)) == 0 else None


class NvmlError(Unreadable):
    """The library refused."""


def devices(visible: str | None, library: Any = None) -> list[Device]:
    """Those of this pod; none where there is no driver. `visible`: CUDA_VISIBLE_DEVICES, which a machine without
    containers divides its GPUs by. Raises NvmlError, also where a device is lost."""
    if library is None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError:
            return []
    _check(library.nvmlInit_v2())
    count = ctypes.c_uint()
    _check(library.nvmlDeviceGetCount_v2(ctypes.byref(count)))
    found: list[Device] = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        _check(library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)))
        device = _NvmlDevice(library, handle)
        if _is_visible(index, device.uuid, visible):
            found.append(device)
    return found


def _is_visible(index: int, uuid: str, visible: str | None) -> bool:
    if visible is None:
        return True
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return any(name == str(index) or (not name.isdecimal() and uuid.startswith(name)) for name in names)


def _check(code: int) -> None:
    if code != 0:
        raise NvmlError(f"NVML answered {code}")


__all__ = ["LIBRARY", "Device", "Gpus", "NvmlError", "devices"]
