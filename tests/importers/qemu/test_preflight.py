"""What is wrong is said before anything is done, each with what helps."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from simulators.guests import make_guest

from importers.qemu import accelerator, counting, firmware, host, programs
from importers.qemu.accelerator import why_not_kvm
from pipeline.finding import Finding
from qemu.bench import HARDWARE, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.of_sector(tmp_path, "idles", disks={0: {"bus": "sata"}})


def error(findings: list[Finding]) -> Finding:
    """The only one."""
    [found] = [finding for finding in findings if finding.severity == "error"]
    assert found.remedy
    return found


def test_a_machine_that_fits_has_no_findings(bench: Bench) -> None:
    assert bench.findings() == []


def test_without_qemu_the_command_that_installs_it_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    subjects = {(f.severity, f.subject) for f in bench.findings()}
    assert subjects == {("error", "QEMU")}
    assert "apt-get install -y qemu-system-x86" in bench.importer().examine()[0].remedy


def test_an_old_qemu_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importers.qemu.preflight.LEAST_VERSION", (99, 0))
    assert "99.0 is needed" in error(bench.findings()).message


def test_without_ovmf_only_machines_with_uefi_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "DESCRIPTIONS", ())
    monkeypatch.setattr(firmware, "KNOWN", ())
    assert bench.findings() == []
    assert "apt-get install -y ovmf" in error(bench.findings(firmware="uefi", memory="512MiB")).remedy
    assert "firmware" in {finding.subject for finding in bench.importer().examine()}


def test_a_machine_with_secure_boot_is_told_when_it_has_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware = HARDWARE.model_copy(update={"firmware": "uefi", "secure_boot": True, "memory_bytes": 512 << 20})
    bench = Bench(tmp_path, make_guest(tmp_path / "d", "idles"), hardware=hardware, disks={0: {"bus": "sata"}})
    assert bench.findings() == [], "this host has firmware with secure boot"
    plain = tuple(flash for flash in firmware.KNOWN if not flash.secure)
    monkeypatch.setattr(firmware, "DESCRIPTIONS", ())
    monkeypatch.setattr(firmware, "KNOWN", plain)
    [found] = bench.findings()
    assert (found.severity, found.subject) == ("warning", "firmware")


def test_more_memory_than_there_is_is_an_error_and_more_than_is_free_a_warning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "memory_bytes", lambda: (8 << 30, 1 << 30))
    assert bench.findings(memory="2GiB")[0].severity == "warning"
    assert error(bench.findings(memory="16GiB")).subject == "memory"
    assert bench.findings(memory="16GiB", boots=False) == []


def test_too_little_room_is_an_error_until_the_disks_are_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "free_bytes", lambda _folder: 1000)
    assert error(bench.findings()).subject == "space"
    monkeypatch.undo()
    bench.stage()
    monkeypatch.setattr(host, "free_bytes", lambda _folder: 60_000)
    assert error(bench.findings()).subject == "space", "a block is there, a chunk is needed"


@pytest.mark.parametrize(
    ("said", "subject"),
    [
        ({"networks": {"*": "lan"}}, "network lan"),
        ({"networks": {"*": "bridge:no-such-br"}}, "network bridge:no-such-br"),
        ({"options": {"qemu": {"colour": "blue"}}}, "options"),
        ({"disks": {0: {"format": "vmdk"}}}, "disk 0"),
        ({"disks": {0: {"device": "/dev/sdz:size=1"}}}, "disk 0"),
        ({"disks": {0: {"bus": "ide"}}, "options": {"qemu": {"machine": "q35", "accelerator": "tcg"}}}, "machine"),
    ],
)
def test_a_mapping_that_does_not_fit_is_an_error(bench: Bench, said: dict[str, object], subject: str) -> None:
    assert error(bench.findings(**said)).subject == subject


def test_a_port_that_is_in_use_is_an_error_but_not_for_a_rehearsal(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = {"qemu": {"accelerator": "tcg", "forwards": {str(port): 80}}}
        assert error(bench.findings(options=options)).subject == f"port {port}"
        assert bench.findings(options=options, purpose="rehearsal") == []


def test_the_name_of_another_machine_here_is_a_warning(tmp_path: Path) -> None:
    first = Bench.of_sector(tmp_path / "1", "idles", name="same")
    first.build()
    hardware = HARDWARE.model_copy(update={"name": "vm"})
    other = Bench(tmp_path / "2", make_guest(tmp_path / "d", "idles"), hardware=hardware, name="same")
    other.out = first.out
    assert "name" not in {finding.subject for finding in other.findings()}, "the same machine again"
    record = next(first.out.glob("*/build-production/machine.json"))
    record.write_text(record.read_text().replace('"machine": "vm"', '"machine": "other"'))
    assert "name" in {finding.subject for finding in other.findings()}


def test_kvm_is_only_taken_for_working_when_a_machine_ran_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importers.qemu.accelerator.DEVICE", Path("/nowhere/kvm"))
    assert why_not_kvm(programs.find_program("qemu-system-x86_64")) == "there is no /nowhere/kvm"
    monkeypatch.setattr("importers.qemu.accelerator.DEVICE", Path("/dev/null"))
    assert "the firmware said nothing" in why_not_kvm("true")


def test_kvm_that_is_slower_than_qemu_alone_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the host interprets what runs without paging: the firmware comes, no system ever does."""
    monkeypatch.setattr("importers.qemu.accelerator.DEVICE", Path("/dev/null"))
    monkeypatch.setattr("importers.qemu.accelerator._SECONDS", 2.0)
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho SeaBIOS\nexec sleep 60\n")
    slow.chmod(0o755)
    assert "too slow with KVM" in why_not_kvm(str(slow))


def test_the_trial_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With QEMU alone, as there may be no KVM here."""
    monkeypatch.setattr("importers.qemu.accelerator.DEVICE", Path("/dev/null"))
    monkeypatch.setattr("importers.qemu.accelerator._SECONDS", 60.0)
    monkeypatch.setattr(
        "importers.qemu.accelerator._PROBE",
        [{"kvm": "tcg", "host": "max"}.get(word, word) for word in accelerator._PROBE],
    )
    assert why_not_kvm(programs.find_program("qemu-system-x86_64")) == ""


def test_the_trial_program_is_what_its_source_says(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("ld")):
        pytest.skip("needs binutils")
    made, linked = tmp_path / "made.o", tmp_path / "linked"
    subprocess.run(["as", "--64", "-o", made, "-"], input=counting.SOURCE, text=True, check=True)
    subprocess.run(["ld", "-e", "start", "-Ttext=0x7c00", "--oformat", "binary", "-o", linked, made], check=True)
    assert counting.image().startswith(linked.read_bytes())


def test_kvm_that_was_demanded_but_does_not_work_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importers.qemu.accelerator.DEVICE", Path("/nowhere/kvm"))
    options = {"qemu": {"accelerator": "kvm"}}
    assert error(bench.findings(options=options)).subject == "KVM"
    [note] = bench.findings(options={"qemu": {}})
    assert (note.severity, note.subject) == ("note", "KVM")
