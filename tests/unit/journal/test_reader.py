from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from keepfit.errors import NotARun, RunFolderError
from keepfit.journal import FILE_NAME, EventRecord, FitRecord, Reader


def test_reader_sees_new_rows_while_the_writer_lives(tmp_path, writer):
    """A second opener reads what the writer commits, without waiting."""
    with Reader.open(tmp_path) as reader:
        assert reader.fits() == []
        with writer.transaction(durable=False):
            writer.put_fit(FitRecord(number=1))
            with Reader.open(tmp_path) as another:
                assert another.fits() == []
        assert [item.number for item in reader.fits()] == [1]


def test_reader_leaves_nothing_beside_a_run_at_rest(tmp_path, writer):
    """Reading a run that nobody writes makes no file and changes none."""
    with writer.transaction(durable=False):
        writer.put_fit(FitRecord(number=1))
    writer.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with Reader.open(tmp_path) as reader:
        assert len(reader.fits()) == 1
    assert [item.name for item in tmp_path.iterdir()] == [FILE_NAME]
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_reader_reads_what_a_killed_writer_left(tmp_path, writer):
    """Rows that are still in the log of a writer that died are read."""
    with writer.transaction(durable=False):
        writer.put_fit(FitRecord(number=1))
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy", "*-shm"))
    assert (tmp_path / "copy" / (FILE_NAME + "-wal")).exists()
    with Reader.open(tmp_path / "copy") as reader:
        assert len(reader.fits()) == 1


def test_events_can_be_asked_for_by_kind_and_number(tmp_path, writer):
    """The last so many events come oldest first; a kind selects."""
    with writer.transaction(durable=False):
        for number in range(5):
            kind = "damage" if number == 2 else "notice"
            writer.put_event(EventRecord(time=number, kind=kind, message=str(number)))
    assert [item.message for item in writer.reader.events(last=2)] == ["3", "4"]
    assert [item.message for item in writer.reader.events(kind="damage")] == ["2"]


@pytest.mark.parametrize("made", [True, False])
def test_reader_refuses_a_folder_that_is_not_a_run(tmp_path, made):
    """A missing folder and an empty one are named as such."""
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    with pytest.raises(NotARun, match=r"no run\.sqlite" if made else "no such folder"):
        Reader.open(folder)


def test_reader_says_when_a_journal_cannot_be_read(tmp_path):
    """An empty journal, left by a crash at the very first moment, is not a run."""
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(RunFolderError, match="empty"):
        Reader.open(tmp_path)


def test_reading_imports_neither_keras_nor_a_backend(tmp_path):
    """The journal, the store and the recorder come without Keras, in a fresh process."""
    code = (
        "import sys; import keepfit.journal, keepfit.store, keepfit.recorder; "
        "print([name for name in ('keras', 'jax', 'tensorflow', 'torch') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == "[]"
