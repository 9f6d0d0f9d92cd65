from __future__ import annotations

import pytest

from keepfit.journal import place

MOUNTS = """21 1 254:0 / / rw - ext4 /dev/vda rw
36 21 0:30 / /home rw shared:1 - nfs4 server:/home rw
37 36 0:31 / /home/me/fast\\040disk rw - xfs /dev/vdb rw
38 21 0:32 / /mnt/cloud rw - fuse.sshfs host: rw
39 21 0:33 / /mnt/over rw - ext4 /dev/vdc rw
40 39 0:34 / /mnt/over rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/run", "ext4"),
        ("/home/me/run", "nfs4"),
        ("/home/me/fast disk/run", "xfs"),
        ("/mnt/cloud/run", "fuse.sshfs"),
        ("/mnt/over/run", "cifs"),
        ("/homely/run", "ext4"),
    ],
)
def test_file_system_is_that_of_the_innermost_mount(tmp_path, path, kind):
    """The type comes from the mount that a path lies on, the uppermost of several."""
    from pathlib import Path

    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert place.file_system(Path(path), tmp_path / "mountinfo") == kind


@pytest.mark.parametrize(("kind", "safe"), [("ext4", True), ("", True), ("nfs4", False), ("fuse.sshfs", False)])
def test_wal_is_safe_on_local_file_systems_only(tmp_path, monkeypatch, kind, safe):
    """What is shared between machines gets no write-ahead log."""
    monkeypatch.setattr(place, "file_system", lambda path: kind)
    assert place.wal_is_safe(tmp_path) is safe
