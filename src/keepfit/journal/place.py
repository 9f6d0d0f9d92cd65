"""Whether a file system can carry SQLite's write-ahead log."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# Shared between machines or between kernels: the log's index is shared memory, which does not reach that far.
_SHARED = {
    "9p", "afs", "beegfs", "ceph", "cifs", "drvfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
}  # fmt: skip


def wal_is_safe(path: Path) -> bool:
    """Return whether a database at a path may use a write-ahead log.

    References:
        https://www.sqlite.org/wal.html: "WAL does not work over a network filesystem".
    """
    kind = file_system(path)
    return kind not in _SHARED and not kind.startswith("fuse.") and not str(path.absolute()).startswith("\\\\")


def file_system(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system that a path lies on, "" where the system does not tell."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    place = path.resolve()
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if len(point.parts) >= best and place.is_relative_to(point):  # the last of equals lies on top
            best, kind = len(point.parts), after.split()[0]
    return kind
