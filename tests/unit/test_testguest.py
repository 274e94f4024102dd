# SPDX-License-Identifier: LGPL-2.1-or-later
"""The writing guest's code is what its source says, and its check finds what is lost."""

import pathlib
import subprocess

import pytest

from virmirror import testguest
from virmirror.testguest import BOOT_SECTOR, MIB, WritesLost

SOURCE = pathlib.Path(__file__).parents[1] / "data" / "writer.S"
BLOCK = 8192
SLOTS = 256
RING = MIB  # offset


# ---- the boot sector -------------------------------------------------------


@pytest.fixture
def assembled(tmp_path):
    """The boot sector, made anew from its source."""
    binary = tmp_path / "writer.bin"
    run("as", "--32", "-o", tmp_path / "writer.o", SOURCE)
    layout = ("-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00")
    run("ld", *layout, "-o", binary, tmp_path / "writer.o")
    return binary.read_bytes()


def run(*command):
    subprocess.run([*map(str, command)], check=True)


def test_boot_sector_is_the_assembled_source(assembled):
    assert assembled == BOOT_SECTOR


def test_boot_sector_is_one_sector_that_a_bios_boots():
    assert len(BOOT_SECTOR) == 512
    assert BOOT_SECTOR.endswith(b"\x55\xaa")


# ---- the check -------------------------------------------------------------


def block(number, drive=0):
    """What the guest writes in one round."""
    return (number.to_bytes(4, "little") + b"VMR" + bytes([drive])) * (BLOCK // 8)


def ring(last, drive=0):
    """The ring after ``last`` rounds, slot by slot."""
    slots = [bytes(BLOCK)] * SLOTS
    for number in range(max(1, last - SLOTS + 1), last + 1):
        slots[(number - 1) % SLOTS] = block(number, drive)
    return slots


class Disk:
    """A chain on which the guest has written, without any guest."""

    def __init__(self, folder, layers=("common", "old.qcow2"), data=0):
        self.folder = folder
        self.layers = len(layers)
        self.chain = testguest.make_chain(folder, layers, size=16 * MIB, data=data)
        self.serial = folder / "serial"

    def write(self, slots, offset=RING):
        data = self.folder / "data"
        data.write_bytes(b"".join(slots))
        self.io(f"write -q -s {data} {offset} {data.stat().st_size}")

    def io(self, command):
        run("qemu-io", "-f", "qcow2", "-c", command, self.chain[-1])

    def report(self, rounds):
        self.serial.write_bytes(b"." * rounds)

    def check(self, **options):
        options = {"layers": self.layers, **options}
        return testguest.check(self.chain[-1], self.serial, **options)


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


@pytest.mark.parametrize("rounds", [1, 255, 256, 257, 1000])
@pytest.mark.parametrize("unreported", [0, 1], ids=["all-reported", "one-on-its-way"])
def test_check_of_a_whole_disk_counts_its_writes(disk, rounds, unreported):
    disk.write(ring(rounds))
    disk.report(rounds - unreported)
    assert disk.check() == testguest.Writes(rounds - unreported, rounds)


def test_check_of_a_disk_that_was_never_written_to_counts_none(disk):
    assert disk.check() == testguest.Writes(0, 0)


def test_check_of_the_second_drive_knows_its_blocks(disk):
    disk.write(ring(300, drive=1))
    disk.report(300)
    assert disk.check(drive=1).highest == 300


def test_check_of_lost_rounds_at_the_end_fails(disk):
    disk.write(ring(298))
    disk.report(300)
    with pytest.raises(WritesLost, match="round 300 was reported, 298 is the highest"):
        disk.check()


def test_check_of_rounds_that_were_never_reported_fails(disk):
    disk.write(ring(302))
    disk.report(300)
    with pytest.raises(WritesLost, match="round 300 was reported, 302 is the highest"):
        disk.check()


@pytest.mark.parametrize("lost", [52, 256, 300], ids=["oldest", "last-slot", "newest"])
def test_check_of_a_slot_rolled_back_fails(disk, lost):
    slots = ring(307)
    slots[(lost - 1) % SLOTS] = block(lost - SLOTS) if lost > SLOTS else bytes(BLOCK)
    disk.write(slots)
    disk.report(307)
    holds = max(0, lost - SLOTS)
    with pytest.raises(WritesLost, match=f"slot {(lost - 1) % SLOTS} holds round {holds}, not"):
        disk.check()


def test_check_of_the_newest_slot_rolled_back_fails_by_the_report(disk):
    slots = ring(300)
    slots[43] = block(44)
    disk.write(slots)
    disk.report(300)
    with pytest.raises(WritesLost, match="299 is the highest"):
        disk.check()


def test_check_of_a_slot_with_another_slots_block_fails(disk):
    slots = ring(300)
    slots[7], slots[8] = slots[8], slots[7]
    disk.write(slots)
    disk.report(300)
    with pytest.raises(WritesLost, match="slot 7 holds round 265, not 264"):
        disk.check()


@pytest.mark.parametrize("at", [512, 4096, BLOCK - 512])
def test_check_of_a_torn_slot_fails(disk, at):
    slots = ring(300)
    slots[43] = block(300)[:at] + block(44)[at:]
    disk.write(slots)
    disk.report(300)
    with pytest.raises(WritesLost, match="slot 43 is torn"):
        disk.check()


def test_check_of_a_slot_zeroed_in_part_fails(disk):
    disk.write(ring(300))
    disk.report(300)
    disk.io(f"write -q -z {RING + 4096} 4096")
    with pytest.raises(WritesLost, match="slot 0 is torn"):
        disk.check()


def test_check_of_another_drives_block_fails(disk):
    slots = ring(300)
    slots[9] = block(266, drive=1)
    disk.write(slots)
    disk.report(300)
    with pytest.raises(WritesLost, match=r"slot 9 holds \w+, which drive 0 never wrote"):
        disk.check()


def test_check_of_what_no_guest_wrote_fails(disk):
    slots = ring(300)
    slots[9] = b"\x33" * BLOCK
    disk.write(slots)
    disk.report(300)
    with pytest.raises(WritesLost, match="slot 9 holds 3333333333333333"):
        disk.check()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_check_of_a_chain_without_a_layers_data_names_it(tmp_path, lost):
    disk = Disk(tmp_path, ["base", "middle.qcow2", "top.qcow2"])
    disk.write(ring(300))
    disk.report(300)
    disk.check()
    disk.io(f"write -q -z {(8 + lost) * MIB} 512")
    with pytest.raises(WritesLost, match=f"layer {lost} of the backing chain is lost"):
        disk.check()


def test_check_of_a_chain_that_skips_a_layer_names_it(tmp_path):
    disk = Disk(tmp_path, ["base", "middle.qcow2", "top.qcow2"])
    disk.write(ring(300))
    disk.report(300)
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "base", "-F", "qcow2", disk.chain[-1])
    with pytest.raises(WritesLost, match="layer 1 of the backing chain is lost"):
        disk.check()


@pytest.mark.parametrize("offset", [10 * MIB, 12 * MIB - 512, 7 * MIB])
def test_check_of_changed_data_of_the_base_fails(tmp_path, offset):
    disk = Disk(tmp_path, data=2 * MIB)
    disk.write(ring(300))
    disk.report(300)
    disk.check()
    disk.io(f"write -q -z {offset} 512")
    with pytest.raises(WritesLost, match="data of the base is lost or changed"):
        disk.check()


def test_make_chain_that_does_not_fit_makes_nothing(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        testguest.make_chain(tmp_path, size=16 * MIB, data=8 * MIB)
    assert not list(tmp_path.iterdir())


# ---- the rest --------------------------------------------------------------


def test_make_chain_boots_and_names_its_layers_relatively(tmp_path):
    paths = testguest.make_chain(tmp_path, ["a", "b.qcow2"], size=16 * MIB, data=MIB)
    assert paths == [tmp_path / "a", tmp_path / "b.qcow2"]
    assert sorted(tmp_path.iterdir()) == paths
    header = paths[1].read_bytes()[:4096]
    assert b"\0a" in header and str(tmp_path).encode() not in header
    raw = tmp_path / "raw"
    run("qemu-img", "convert", "-O", "raw", paths[1], raw)
    data = raw.read_bytes()
    assert data[:512] == BOOT_SECTOR
    assert len(data) == 16 * MIB and not any(data[512 : 4 * MIB])


def test_wait_for_writes_that_do_not_come_times_out(tmp_path):
    with pytest.raises(TimeoutError, match="reported 3 rounds, not 4"):
        (tmp_path / "serial").write_bytes(b"..E.")
        testguest.wait_for_writes(tmp_path / "serial", timeout=0.05)


def test_wait_for_writes_before_the_guest_has_a_serial_port_times_out(tmp_path):
    with pytest.raises(TimeoutError, match="reported 0 rounds, not 2"):
        testguest.wait_for_writes(tmp_path / "serial", 2, timeout=0.05)
