"""keepfit verify."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfit.cli.folder import TRIES, RunFolder, read_folder
from keepfit.cli.sizes import size
from keepfit.errors import FormatTooNew, NotARun, RunFolderError
from keepfit.history.table import counted
from keepfit.journal import FILE_NAME

if TYPE_CHECKING:
    from keepfit.journal import CheckpointRecord, FitRecord

NAMES_SHOWN = 3


@dataclass(frozen=True)
class Report:
    """What was found in a run folder.

    Args:
        directory: The folder.
        damages: What is damaged, one sentence each, the file or row named first.
        notices: What is odd and harms nothing.
        checked: What was checked, in words.
    """

    directory: Path
    damages: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    checked: str = ""

    def lines(self) -> Iterator[str]:
        """Give the report as a person reads it."""
        for text in self.damages:
            yield f"damaged: {text}"
        for text in self.notices:
            yield f"notice: {text}"
        verdict = f"{len(self.damages)} damaged" if self.damages else "all is well"
        yield f"{self.directory}: {self.checked}: {verdict}" if self.checked else f"{self.directory}: {verdict}"


@dataclass
class _Objects:
    """The stored tensors of all checkpoints, each once, and who needs them."""

    manifest: dict[str, list[Any]] = field(default_factory=dict)
    users: dict[str, set[int]] = field(default_factory=dict)


def verify_folder(directory: Path) -> Report:
    """Check every object of a run against its hash, and every row against its objects.

    A process may be writing meanwhile: what looks damaged and is gone, or right,
    at a second look is not reported.

    Raises:
        NotARun: The folder holds something else.
        FormatTooNew: It was written by a newer keepfit.
        RunFolderError: Its journal cannot be opened.
    """
    report = _verify(directory)
    for _ in range(TRIES - 1):
        if not report.damages:
            break
        second = _verify(directory)
        lasting = tuple(damage for damage in second.damages if damage in report.damages)
        report = Report(directory, lasting, second.notices, second.checked)
    return report


def _verify(directory: Path) -> Report:
    journal = tuple(_journal_damages(directory / FILE_NAME))
    try:
        folder = read_folder(directory)
    except (NotARun, FormatTooNew):
        raise
    except RunFolderError as error:
        return Report(directory, journal or (f"{FILE_NAME}: {error}",))
    objects = _objects(folder.checkpoints)
    damages = (*journal, *_row_damages(folder), *_object_damages(folder, objects), *_rehearsal_damages(folder))
    read = sum(folder.files.get(name, 0) for name in objects.users)
    counts = (
        counted(len(folder.checkpoints), "checkpoint"),
        f"{counted(len(objects.manifest), 'tensor')} in {counted(len(objects.users), 'file')} ({size(read)})",
        counted(len(folder.history.records), "fit"),
        counted(len(folder.history.epochs), "epoch"),
    )
    return Report(directory, damages, tuple(_notices(folder, objects)), ", ".join(counts))


def _journal_damages(path: Path) -> Iterator[str]:
    if not path.is_file():
        return  # reading it says what is wrong
    # Without a log beside it nobody writes, and a reader must not leave one there.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=10)
    except sqlite3.Error:
        return
    try:
        answers = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return  # a folder that is read-only, a busy writer: no damage
        answers = [str(error)]
    finally:
        connection.close()
    yield from (f"{FILE_NAME}: {answer}" for answer in answers if answer != "ok")


def _row_damages(folder: RunFolder) -> Iterator[str]:
    fits = {(fit.branch, fit.number): fit for fit in folder.history.records}
    epochs = folder.history.epochs
    for epoch in epochs:
        if (epoch.branch, epoch.fit) not in fits:
            yield f"epoch {epoch.epoch}: its fit {epoch.fit} is not in the journal"
    found = [epoch.epoch for epoch in epochs]
    if found != list(range(len(found))):
        gap = next(index for index, number in enumerate(found) if index != number)
        yield f"epoch {gap}: it is not in the journal, and {counted(len(found) - gap, 'later epoch')} is"
    of_fit = Counter(epoch.fit for epoch in epochs)
    for fit in fits.values():
        if fit.branch == 0:
            yield from _fit_damages(fit, fits.get((0, fit.number - 1)), of_fit[fit.number])
    for point in folder.checkpoints:
        if point.fit and (point.branch, point.fit) not in fits:
            yield f"checkpoint {point.id}: its fit {point.fit} is not in the journal"


def _fit_damages(fit: FitRecord, before: FitRecord | None, epochs: int) -> Iterator[str]:
    if fit.number > 1 and before is None:
        yield f"fit {fit.number - 1}: it is not in the journal, and fit {fit.number} is"
    # A fit that is being trained writes its own row last.
    if fit.status != "open" and fit.epochs_done != epochs:
        yield f"fit {fit.number}: {counted(fit.epochs_done, 'epoch')} by its row, {epochs} in the journal"


def _objects(checkpoints: Iterable[CheckpointRecord]) -> _Objects:
    objects = _Objects()
    seen = set()
    for point in checkpoints:
        for tensor, entry in point.manifest.items():
            file, key, digest = str(entry[0]), str(entry[1]), str(entry[2])
            objects.users.setdefault(file, set()).add(point.id)
            if (file, key, digest) not in seen:
                seen.add((file, key, digest))
                objects.manifest[f"{point.id} {tensor}"] = list(entry)
    return objects


def _object_damages(folder: RunFolder, objects: _Objects) -> Iterator[str]:
    from keepfit.store.objects import Store

    for name in sorted(objects.users.keys() - folder.files.keys()):
        yield f"objects/{name}: {_needed(objects.users[name])}, and the journal's list of files lacks it"
    for damage in Store(folder.objects).verify(objects.manifest):
        tensors = sorted(name.partition(" ")[2] for name in damage.tensors)
        more = f" and {len(tensors) - NAMES_SHOWN} more" if len(tensors) > NAMES_SHOWN else ""
        lost = ", ".join(tensors[:NAMES_SHOWN]) + more
        yield f"objects/{damage.file}: {damage.reason} ({_needed(objects.users[damage.file])}: {lost})"


def _needed(users: Iterable[int]) -> str:
    numbers = ", ".join(map(str, sorted(users)))
    return f"checkpoint {numbers} needs it" if "," not in numbers else f"checkpoints {numbers} need it"


def _notices(folder: RunFolder, objects: _Objects) -> Iterator[str]:
    if folder.writer:
        yield f"{folder.writer} is writing here; what it adds meanwhile was not checked"
    try:
        there = {path.name for path in folder.objects.iterdir()}
    except OSError:
        there = set()
    yield from _feature_notices(folder)
    orphans = sorted(there - objects.users.keys())
    if orphans and not folder.writer:
        shown = ", ".join(orphans[:NAMES_SHOWN]) + (", ..." if len(orphans) > NAMES_SHOWN else "")
        yield f"{counted(len(orphans), 'file')} in objects that no checkpoint needs: {shown}"


def _rehearsal_damages(folder: RunFolder) -> Iterator[str]:
    """Tell of damaged samples of earlier fits: only a call of their fit, with the data, brings them back."""
    from keepfit.store import damage_of

    for name, facts in sorted((folder.meta.get("rehearsal_files") or {}).items()):
        wrong = damage_of(folder.directory / "rehearsal" / name, facts) if facts else None
        if wrong is not None:
            yield f"rehearsal/{name}: {wrong} (samples for later fits, which go on without them)"


def _feature_notices(folder: RunFolder) -> Iterator[str]:
    """Tell of features of frozen layers that are damaged: they are computed again, so that nothing is lost."""
    from keepfit.store import damage_of

    for name, facts in sorted((folder.meta.get("features") or {}).items()):
        wrong = damage_of(folder.directory / "features" / name, facts) if facts else None
        if wrong is not None:
            yield f"features/{name}: {wrong}; the next fit that needs it computes it again"
