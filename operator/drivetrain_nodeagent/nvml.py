"""The dozen calls of NVML that are needed, by ctypes: the library comes with the driver, and its calls are never
changed.

Watts, joules and degrees out; what a card cannot tell is None. NVML's own units are milliwatts and millijoules.
https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

from drivetrain_nodeagent.errors import NvmlError, NvmlMissing

LIBRARY: Final = "libnvidia-ml.so.1"
_SUCCESS: Final = 0
_INSUFFICIENT_SIZE: Final = 7
_TEMPERATURE_GPU: Final = 0
_MOST_PROCESSES: Final = 4096
_SLOWED: Final = 0x8 | 0x20 | 0x40 | 0x80
"""nvmlClocksThrottleReasonHwSlowdown, SwThermalSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown."""


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t of nvmlDeviceGetComputeRunningProcesses_v3."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


@dataclass(frozen=True, slots=True)
class Device:
    """One card. `uuid` stays the same over restarts; the handle is this process's own."""

    uuid: str
    name: str
    least: float
    most: float
    default: float
    """Watts that it may be limited to, and is limited to when nobody says otherwise."""
    handle: ctypes.c_void_p


class Nvml:
    """The library, started. One thread at a time. Raises NvmlMissing where there is none."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._lib = ctypes.CDLL(library)
        except OSError as error:
            raise NvmlMissing(f"{library}: {error}") from None
        self._call("nvmlInit_v2")

    def close(self) -> None:
        """Ends it. Limits stay as they are."""
        self._call("nvmlShutdown")

    def devices(self) -> list[Device]:
        """All cards whose power can be limited; others cannot be of use, and are left out."""
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        found = []
        for index in range(count.value):
            try:
                found.append(self._device(index))
            except NvmlError:  # a card that fell off the bus, or one without power management
                continue
        return found

    def limit(self, device: Device) -> float:
        """Watts that it is limited to."""
        return self._number("nvmlDeviceGetPowerManagementLimit", device) / 1000

    def set_limit(self, device: Device, watts: float) -> None:
        """Limit it. Needs root."""
        self._call("nvmlDeviceSetPowerManagementLimit", device.handle, ctypes.c_uint(round(watts * 1000)))

    def watts(self, device: Device) -> float | None:
        """What it draws."""
        return _scaled(self._maybe("nvmlDeviceGetPowerUsage", device))

    def joules(self, device: Device) -> float | None:
        """What it took since the driver was loaded; None before Volta."""
        return _scaled(self._maybe("nvmlDeviceGetTotalEnergyConsumption", device, ctypes.c_ulonglong))

    def celsius(self, device: Device) -> float | None:
        """How hot it is."""
        value = ctypes.c_uint()
        try:
            self._call("nvmlDeviceGetTemperature", device.handle, ctypes.c_uint(_TEMPERATURE_GPU), ctypes.byref(value))
        except NvmlError:
            return None
        return float(value.value)

    def slowed(self, device: Device) -> bool:
        """Whether heat, or a brake of its board's power, keeps its clocks down; a power cap is neither."""
        reasons = self._maybe("nvmlDeviceGetCurrentClocksThrottleReasons", device, ctypes.c_ulonglong)
        return bool((reasons or 0) & _SLOWED)

    def processes(self, device: Device) -> list[int]:
        """Ids of those that compute on it, as the host counts them."""
        room = 64
        while True:
            count, infos = ctypes.c_uint(room), (_Process * room)()
            try:
                self._call("nvmlDeviceGetComputeRunningProcesses_v3", device.handle, ctypes.byref(count), infos)
            except NvmlError as error:
                if error.code != _INSUFFICIENT_SIZE or room >= _MOST_PROCESSES:
                    raise
                room = min(_MOST_PROCESSES, max(2 * room, count.value))
                continue
            return [infos[index].pid for index in range(min(count.value, room))]

    def _device(self, index: int) -> Device:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        least, most, default = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
        self._call("nvmlDeviceGetPowerManagementLimitConstraints", handle, ctypes.byref(least), ctypes.byref(most))
        self._call("nvmlDeviceGetPowerManagementDefaultLimit", handle, ctypes.byref(default))
        uuid, name = self._text("nvmlDeviceGetUUID", handle), self._text("nvmlDeviceGetName", handle)
        return Device(uuid, name, least.value / 1000, most.value / 1000, default.value / 1000, handle)

    def _text(self, call: str, handle: ctypes.c_void_p) -> str:
        text = ctypes.create_string_buffer(96)
        self._call(call, handle, text, ctypes.c_uint(len(text)))
        return text.value.decode(errors="replace")

    def _number(self, call: str, device: Device, kind: type[ctypes.c_uint | ctypes.c_ulonglong] = ctypes.c_uint) -> int:
        value = kind()
        self._call(call, device.handle, ctypes.byref(value))
        return value.value

    def _maybe(
        self, call: str, device: Device, kind: type[ctypes.c_uint | ctypes.c_ulonglong] = ctypes.c_uint
    ) -> int | None:
        try:
            return self._number(call, device, kind)
        except (NvmlError, NvmlMissing):  # the card cannot tell, or the driver knows no such call
            return None

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._lib, name)
        except AttributeError:
            raise NvmlMissing(f"this driver's NVML has no {name}") from None
        code: int = function(*arguments)
        if code != _SUCCESS:
            raise NvmlError(name, code, self._error_text(code))

    def _error_text(self, code: int) -> str:
        function = getattr(self._lib, "nvmlErrorString", None)
        if function is None:
            return "error"
        function.restype = ctypes.c_char_p
        text: bytes | None = function(ctypes.c_int(code))
        return text.decode(errors="replace") if text else "error"


def _scaled(thousandths: int | None) -> float | None:
    return None if thousandths is None else thousandths / 1000


__all__ = ["LIBRARY", "Device", "Nvml"]
