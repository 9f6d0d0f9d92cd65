from __future__ import annotations

from keepfit.store import Disk


def test_write_goes_on_when_the_system_takes_less_at_a_time(tmp_path):
    """A write that the system cuts short is continued until all bytes are there."""
    taken = bytearray()

    def write(data):
        taken.extend(data[:3])
        return min(3, len(data))

    Disk().append(write, [b"hello ", b"", b"world"])
    assert bytes(taken) == b"hello world"


def test_disk_writes_reads_and_renames(tmp_path):
    """A file that was written aside has its content under its name."""
    disk = Disk()
    disk.mkdir(tmp_path / "a" / "b")
    disk.write(tmp_path / "a" / "b" / "x.part", [b"1", memoryview(b"23")])
    disk.rename(tmp_path / "a" / "b" / "x.part", tmp_path / "a" / "b" / "x")
    disk.sync_directory(tmp_path / "a" / "b")
    assert disk.read(tmp_path / "a" / "b" / "x") == b"123"
    assert disk.size(tmp_path / "a" / "b" / "x") == 3
    assert disk.size(tmp_path / "missing") is None
    disk.unlink(tmp_path / "missing")
