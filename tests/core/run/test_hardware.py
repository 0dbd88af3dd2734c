"""Devices: their peaks, their names, and what time and money follow."""

from __future__ import annotations

import pytest
from phasegate.core.config.schema import HardwareSection
from phasegate.core.run.hardware import DEVICES, machine_of
from phasegate.registry.errors import ConfigError

#: TFLOP/s from the data sheets, dense: bf16 on tensor cores, fp32 without TF32.
SHEETS = {"a100": (312, 19.5), "b200": (2250, 80), "h100": (989, 67), "h200": (989, 67), "rtx-4090": (165.2, 82.6)}


def test_peaks_are_those_of_the_data_sheets_without_sparsity() -> None:
    found = {name: (device.bf16 / 1e12, device.fp32 / 1e12) for name, device in DEVICES.items() if name != "cpu"}
    assert found == {name: pytest.approx(peaks) for name, peaks in SHEETS.items()}


def test_the_devices_are_sorted_and_every_one_says_where_its_peaks_stand() -> None:
    assert list(DEVICES) == sorted(DEVICES)
    assert all(device.name == name and device.source and device.price > 0 for name, device in DEVICES.items())


@pytest.mark.parametrize("name", ["h100", "H100", "NVIDIA H100"])
def test_a_device_is_found_however_its_name_is_written(name: str) -> None:
    assert machine_of(HardwareSection(device=name), "bf16").device.name == "h100"


@pytest.mark.parametrize("name", ["RTX 4090", "rtx4090", "NVIDIA GeForce RTX 4090", "rtx-4090"])
def test_a_consumer_card_too(name: str) -> None:
    assert machine_of(HardwareSection(device=name), "fp32").device.name == "rtx-4090"


def test_an_unknown_device_is_one_sentence_with_the_nearest_and_all_names() -> None:
    with pytest.raises(ConfigError) as caught:
        machine_of(HardwareSection(device="h20"), "bf16")
    assert str(caught.value) == (
        "there is no device 'h20'. Did you mean 'h200'? Devices: a100, b200, cpu, h100, h200, rtx-4090."
    )


def test_hours_and_cost_follow_from_peak_utilization_devices_and_price() -> None:
    machine = machine_of(HardwareSection(device="a100", devices=8, utilization=0.5, price=2.0), "bf16")
    assert machine.rate == 8 * 0.5 * 312e12
    # 4.4928e18 FLOPs at 1.248e15 a second are 3600 seconds: one hour of eight devices at 2 dollars.
    assert machine.hours(4.4928e18) == pytest.approx(1.0)
    assert machine.cost(4.4928e18) == pytest.approx(16.0)
    assert not machine.assumed


def test_the_precision_picks_the_peak_and_a_price_that_was_not_given_is_assumed() -> None:
    machine = machine_of(HardwareSection(device="h100"), "fp32")
    assert (machine.peak, machine.price, machine.assumed) == (67e12, 3.0, True)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("device", sorted(DEVICES))
def test_no_device_is_ever_said_to_do_more_than_its_peak(device: str, precision: str) -> None:
    machine = machine_of(HardwareSection(device=device, devices=16, utilization=1.0), precision)  # type: ignore[arg-type]
    assert machine.rate / machine.devices <= max(DEVICES[device].bf16, DEVICES[device].fp32)
    assert machine.rate / machine.devices == machine.peak
