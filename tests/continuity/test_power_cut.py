"""A power cut at any instant leaves the old state or the new (promise P2)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from keepfit.cli.verify import verify_folder
from keepfit.clock import Position
from keepfit.journal import EpochRecord, FitRecord, Writer
from keepfit.recorder import DiskRecorder
from keepfit.recorder.work import Work
from keepfit.store import Disk

JOURNAL_FILES = ("run.sqlite", "run.sqlite-wal")


@dataclass
class Inode:
    """A file without its names."""

    content: bytes
    synced: bytes | None = None


@dataclass
class Log:
    """What happened to a folder, in order, as far as a power cut can tell."""

    root: Path
    steps: list[tuple] = field(default_factory=list)

    def add(self, *step: object) -> None:
        self.steps.append(step)


class RecordingDisk(Disk):
    """Does everything and writes it down."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def write(self, path, chunks):
        chunks = [bytes(chunk) for chunk in chunks]
        self.log.add("write", path, b"".join(chunks))
        super().write(path, chunks)

    def sync(self, descriptor, path):
        self.log.add("sync", path)

    def rename(self, source, target):
        super().rename(source, target)
        self.log.add("rename", source, target)

    def sync_directory(self, path):
        self.log.add("sync_directory", path)

    def unlink(self, path):
        there = path.exists()
        super().unlink(path)
        if there:
            self.log.add("unlink", path)

    def mkdir(self, path):
        if not path.exists():
            self.log.add("mkdir", path)
        super().mkdir(path)

    def committed(self, durable):
        files = {name: (self.log.root / name).read_bytes() for name in JOURNAL_FILES if (self.log.root / name).exists()}
        self.log.add("commit", durable, files)


class NoSync(RecordingDisk):
    """Negative control: content is never made durable."""

    def sync(self, descriptor, path):
        pass


class NoDirectorySync(RecordingDisk):
    """Negative control: names are never made durable."""

    def sync_directory(self, path):
        pass


class SyncAfterwards(RecordingDisk):
    """Negative control: content is made durable at the next sync of the folder's content only."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.waiting: list[Path] = []

    def sync(self, descriptor, path):
        self.waiting.append(path)

    def rename(self, source, target):
        super().rename(source, target)
        self.waiting = [target if path == source else path for path in self.waiting]

    def committed(self, durable):
        super().committed(durable)
        if len(self.waiting) > 2:
            for path in self.waiting:
                self.log.add("sync", path)
            self.waiting = []


@dataclass(frozen=True)
class Cut:
    """How a power cut treats what was not made durable: lost, torn, kept or by chance."""

    content: str
    names: str
    commits: str
    seed: int = 0


CUTS = [
    Cut("lost", "lost", "durable"),
    Cut("lost", "kept", "durable"),
    Cut("torn", "kept", "all"),
    Cut("kept", "lost", "all"),
    Cut("torn", "chance", "durable", 1),
    Cut("lost", "chance", "all", 2),
]


class Folder:
    """A model of a file system that forgets what was not synced."""

    def __init__(self) -> None:
        self.live: dict[Path, Inode | None] = {}  # None: a directory
        self.durable: dict[Path, Inode | None] = {}
        self.commits: list[tuple[bool, dict[str, bytes]]] = []

    def apply(self, step: tuple) -> None:
        what, *facts = step
        if what == "mkdir":
            self.live[facts[0]] = None
        elif what == "write":
            self.live[facts[0]] = Inode(facts[1])
        elif what == "sync" and (inode := self.live.get(facts[0])):
            inode.synced = inode.content
        elif what == "rename":
            self.live[facts[1]] = self.live.pop(facts[0])
        elif what == "unlink":
            self.live.pop(facts[0], None)
        elif what == "sync_directory":
            for path in {*self.live, *self.durable}:
                if path.parent == facts[0]:
                    self._settle(path, self.live)
        elif what == "commit":
            self.commits.append((facts[0], facts[1]))

    def after(self, cut: Cut) -> tuple[dict[Path, bytes], dict[str, bytes]]:
        """Return the files and the journal that are left."""
        chance = random.Random(cut.seed)
        files: dict[Path, bytes] = {}
        for path in sorted({*self.live, *self.durable}):
            kept = cut.names == "kept" or (cut.names == "chance" and chance.random() < 0.5)
            names = self.live if kept else self.durable
            parent_there = path.parent in (self.live if cut.names == "kept" else self.durable)
            inode = names.get(path)
            if inode is not None and parent_there:
                files[path] = self._content(inode, cut)
        index = max((i for i, (durable, _) in enumerate(self.commits) if durable or cut.commits == "all"), default=None)
        return files, {} if index is None else self.commits[index][1]

    def _settle(self, path: Path, names: dict[Path, Inode | None]) -> None:
        if path in names:
            self.durable[path] = names[path]
        else:
            self.durable.pop(path, None)

    @staticmethod
    def _content(inode: Inode, cut: Cut) -> bytes:
        if inode.synced is not None or cut.content == "kept":
            return inode.content
        half = len(inode.content) // 2
        return b"" if cut.content == "lost" else inode.content[:half] + bytes(len(inode.content) - half)


def tensors(label: int) -> dict[str, np.ndarray]:
    """Return a state: something large and frozen, something large and something small that change.

    Every fourth state is equal to an earlier one, whose files are gone by then.
    """
    rng = np.random.default_rng(label % 4)
    return {
        "model/frozen": np.arange(10_000, dtype=np.float64),
        "model/large": rng.normal(size=(100, 100)),
        "model/small": rng.normal(size=7).astype(np.float32),
        "optimizer/count": np.asarray(label % 4),
    }


def put_fit(recorder: DiskRecorder, number: int, *, name: str | None = None, wait: bool = True) -> None:
    """Record a fit of two epochs with a checkpoint at its end."""
    first = 2 * (number - 1)
    recorder.put_fit(FitRecord(number=number, name=name, epochs_planned=2, first_epoch=first))
    for epoch in (first, first + 1):
        recorder.put_epoch(EpochRecord(fit=number, epoch=epoch, label=epoch, logs={"loss": 1.0 + epoch % 3}))
    recorder.put_fit(
        FitRecord(number=number, name=name, epochs_planned=2, epochs_done=2, first_epoch=first, status="finished")
    )
    recorder.checkpoint(
        kind="end",
        fit=number,
        position=Position(fit=number, epoch=first + 2, step=10 * number),
        tensors=tensors(number),
        state={"label": number},
        wait=wait,
    )


def scenario(log: Log, disk: Disk) -> None:
    """Live a life of fits, retention, an interruption and a second session, noting what was acknowledged."""
    recorder = DiskRecorder.open(log.root, keep=1, disk=disk)
    recorder.set_meta("seed", 7)
    recorder.checkpoint(kind="start", fit=0, position=Position(), tensors=tensors(0), state={"label": 0}, wait=True)
    log.add("acknowledged", 0)
    for number in (1, 2, 3, 4, 5):
        put_fit(recorder, number, name="head" if number == 2 else None)
        log.add("acknowledged", number)
    recorder.put_fit(FitRecord(number=6, first_epoch=10))
    recorder.checkpoint(
        kind="inside", fit=6, position=Position(fit=5, epoch=10, step=55), tensors=tensors(55), state={"label": 55}
    )
    recorder.flush()
    log.add("acknowledged", 55)
    recorder.close()
    recorder = DiskRecorder.open(log.root, keep=1, disk=disk)
    for number in (6, 7):
        put_fit(recorder, number, wait=False)
        recorder.flush()
        log.add("acknowledged", number)
    recorder.branch(after=6)
    put_fit(recorder, 7)
    log.add("acknowledged", 7)
    recorder.close()


def recorded(tmp_path: Path, disk: Callable[[Log], RecordingDisk] = RecordingDisk) -> Log:
    """Return the log of the scenario."""
    log = Log(tmp_path / "run")
    scenario(log, disk(log))
    return log


def images(log: Log) -> Iterator[tuple[int, Cut, int | None, dict[Path, bytes], dict[str, bytes]]]:
    """Yield what each power cut leaves, each different folder once."""
    folder, seen, acknowledged = Folder(), set(), None
    folder.durable[log.root] = folder.live[log.root] = None
    for index, step in enumerate(log.steps):
        folder.apply(step)
        if step[0] == "acknowledged":
            acknowledged = step[1]
        for cut in CUTS:
            files, journal = folder.after(cut)
            key = (acknowledged, hash(frozenset(files.items())), hash(frozenset(journal.items())))
            if key not in seen:
                seen.add(key)
                yield index, cut, acknowledged, files, journal


ORDER = [0, 1, 2, 3, 4, 5, 55, 6, 7]


def recovered(root: Path, files: dict[Path, bytes], journal: dict[str, bytes], origin: Path) -> int | None:
    """Open a folder as a power cut left it, check that it is whole, and return the label it came back to."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, content in files.items():
        place = root / path.relative_to(origin)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    for name, content in journal.items():
        (root / name).write_bytes(content)
    recorder = DiskRecorder.open(root, keep=1)
    try:
        newest = recorder.newest()
        for checkpoint in recorder.checkpoints:
            found, state = recorder.load(checkpoint)
            for name, expected in tensors(state["label"]).items():
                assert np.array_equal(found[name], expected), (checkpoint.id, name)
        used = {entry[0] for item in recorder._mirror.checkpoints for entry in item.manifest.values()}
        there = {path.name for path in (root / "objects").iterdir()} if (root / "objects").exists() else set()
        assert there == used, "files that nobody needs were left, or needed ones are gone"
        assert len(recorder.epochs) == (newest.position.epoch if newest else 0)
        assert list(recorder.fits) == list(range(1, newest.fit + 1 if newest else 1))
        label = None if newest is None else newest.state["label"]
        put_fit(recorder, 8)  # and life goes on
    finally:
        recorder.close()
    # The rows are made up, and do not follow one another as a run's do.
    assert [damage for damage in verify_folder(root).damages if not damage.startswith(("epoch", "fit"))] == []
    return label


def violations(log: Log, tmp_path: Path, *, most: int | None = None) -> list[str]:
    """Return what went wrong after each power cut, nothing if the promise holds."""
    wrong = []
    for index, cut, acknowledged, files, journal in images(log):
        try:
            label = recovered(tmp_path / "after", files, journal, log.root)
        except (AssertionError, OSError, UserWarning) as error:
            wrong.append(f"step {index}, {cut}: {error!r}")
        else:
            if acknowledged is not None and (label is None or ORDER.index(label) < ORDER.index(acknowledged)):
                wrong.append(f"step {index}, {cut}: {acknowledged} was acknowledged, {label} is left")
        if most is not None and len(wrong) >= most:
            break
    return wrong


@pytest.mark.slow
def test_power_cut_leaves_the_old_state_or_the_new(tmp_path):
    """After a cut at any step the run opens, undamaged, at the last acknowledged checkpoint or a newer one."""
    log = recorded(tmp_path)
    kinds = {step[0] for step in log.steps}
    assert kinds == {"mkdir", "write", "sync", "rename", "sync_directory", "unlink", "commit", "acknowledged"}
    assert violations(log, tmp_path) == []


@pytest.mark.parametrize("disk", [NoSync, NoDirectorySync, SyncAfterwards])
def test_power_cut_is_noticed_when_a_sync_is_left_out(tmp_path, disk):
    """Negative control: without each kind of sync, or with it too late, the promise is broken and the test sees it."""
    assert violations(recorded(tmp_path, disk), tmp_path, most=1)


def test_power_cut_is_noticed_when_the_row_comes_first(tmp_path, monkeypatch):
    """Negative control: a checkpoint committed before its files breaks the promise."""
    write, tidy, waiting = Work._write_files, Work.tidy, []
    monkeypatch.setattr(Work, "_write_files", lambda work, batch: waiting.append(batch))

    def late(work: Work) -> None:
        while waiting:
            write(work, waiting.pop())
        tidy(work)

    monkeypatch.setattr(Work, "tidy", late)
    log = recorded(tmp_path)
    monkeypatch.undo()
    assert violations(log, tmp_path, most=1)


def test_power_cut_is_noticed_when_commits_are_not_durable(tmp_path, monkeypatch):
    """Negative control: with commits that may be lost an acknowledged checkpoint is."""
    transaction = Writer.transaction
    monkeypatch.setattr(Writer, "transaction", lambda writer, durable: transaction(writer, durable=False))
    log = recorded(tmp_path)
    monkeypatch.undo()
    assert violations(log, tmp_path, most=1)
