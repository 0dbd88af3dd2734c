"""Devices that a budget can be stated for: what each could reach at most, and what an hour of it is assumed to cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing
from ..config.schema import HardwareSection

Precision = Literal["fp32", "bf16"]

TERA = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device: peaks in FLOP/s of dense matrix products, the price of one hour in US dollars, where the peaks stand.

    ``fp32`` is the peak without TF32, which PyTorch leaves off unless asked. The price is an assumption: a round
    figure inside what clouds asked on demand in 2026, which for one device differed by a factor of 2 to 4.
    """

    name: str
    bf16: float
    fp32: float
    price: float
    source: str


#: Peaks of the vendor's data sheets, without structured sparsity (which doubles the figure that they print first).
#: A core of a processor has no such sheet: 3 GHz, two fused multiply-add units of eight fp32 lanes (AVX2), which is
#: 96 GFLOP/s. Wider units do two to ten times that, the more so in bf16; state the utilization that was measured.
DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="a100",
            bf16=312 * TERA,
            fp32=19.5 * TERA,
            price=1.5,
            source="NVIDIA A100 80GB SXM data sheet, 2021",
        ),
        Device(
            name="b200",
            bf16=2250 * TERA,
            fp32=80 * TERA,
            price=6.0,
            source="NVIDIA Blackwell architecture technical brief, 2024: HGX B200, one GPU",
        ),
        Device(
            name="cpu",
            bf16=0.1 * TERA,
            fp32=0.1 * TERA,
            price=0.05,
            source="one core, roughly: 3 GHz x 2 units x 8 lanes x 2",
        ),
        Device(
            name="h100",
            bf16=989 * TERA,
            fp32=67 * TERA,
            price=3.0,
            source="NVIDIA H100 SXM data sheet, 2023",
        ),
        Device(
            name="h200",
            bf16=989 * TERA,
            fp32=67 * TERA,
            price=4.0,
            source="NVIDIA H200 SXM data sheet, 2024",
        ),
        Device(
            name="rtx-4090",
            bf16=165.2 * TERA,
            fp32=82.6 * TERA,
            price=0.5,
            source="NVIDIA Ada GPU architecture white paper, 2022: fp32 accumulation",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What hours and cost are stated for. ``rate`` is the FLOP/s of all devices together at the stated utilization;
    ``assumed`` says that the price is the table's, not the experiment's."""

    device: Device
    devices: int
    precision: Precision
    utilization: float
    price: float
    assumed: bool

    @property
    def peak(self) -> float:
        """Return the FLOP/s that one device could reach at most in this precision."""
        return self.device.bf16 if self.precision == "bf16" else self.device.fp32

    @property
    def rate(self) -> float:
        """Return the FLOP/s that all devices are expected to reach together."""
        return self.devices * self.utilization * self.peak

    def hours(self, flops: float) -> float:
        """Return the hours that so much work takes on all devices together."""
        return flops / self.rate / 3600

    def cost(self, flops: float) -> float:
        """Return what so much work costs in US dollars."""
        return self.hours(flops) * self.devices * self.price


def machine_of(section: HardwareSection, precision: Precision) -> Machine:
    """Return the machine that the section describes; ``ConfigError`` for a device that the table does not have."""
    device = DEVICES.get(_plain(section.device))
    if device is None:
        near = did_you_mean(_plain(section.device), DEVICES)
        raise ConfigError(f"there is no device '{section.device}'.{near} Devices: {listing(DEVICES)}.")
    return Machine(
        device=device,
        devices=section.devices,
        precision=precision,
        utilization=section.utilization,
        price=device.price if section.price is None else section.price,
        assumed=section.price is None,
    )


def _plain(name: str) -> str:
    """Return a device's name as the table writes it: ``NVIDIA RTX 4090`` and ``RTX4090`` are ``rtx-4090``."""
    words = re.findall(r"[a-z]+\d*|\d+", name.lower().replace("nvidia", "").replace("geforce", ""))
    joined = "-".join(words)
    return re.sub(r"^rtx(?=\d)", "rtx-", joined)
