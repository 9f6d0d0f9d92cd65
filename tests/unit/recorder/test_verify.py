from __future__ import annotations

import pytest

from keepfit.errors import NotARun
from keepfit.journal import FILE_NAME
from keepfit.recorder import findings


@pytest.fixture
def run(opened, life):
    """Return the recorder of a closed run with a start and two fits."""
    recorder = opened()
    live = life(recorder)
    live.start()
    live.fit(1)
    live.fit(2)
    recorder.close()
    return recorder


def test_findings_of_a_whole_run_are_none(run, opened):
    """Nothing is found in a run that is whole, at rest or open, and nothing is changed."""
    before = (run.directory / FILE_NAME).read_bytes()
    assert findings(run.directory) == []
    assert (run.directory / FILE_NAME).read_bytes() == before
    opened()
    assert findings(run.directory) == []


def test_findings_name_file_tensor_and_checkpoints(run):
    """A flipped bit in a shared object names all checkpoints that need it; a missing file is found too."""
    frozen = run.checkpoints[0].manifest["model/frozen"][0]
    small = run.checkpoints[2].manifest["model/small"][0]
    path = run.directory / "objects" / frozen
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    (run.directory / "objects" / small).unlink()
    found = {item.file: item for item in findings(run.directory)}
    assert set(found) == {f"objects/{frozen}", f"objects/{small}"}
    assert found[f"objects/{frozen}"].checkpoints == (1, 2, 3)
    assert found[f"objects/{frozen}"].tensors == ("model/frozen",)
    assert found[f"objects/{small}"].checkpoints == (3,)
    assert "missing" in found[f"objects/{small}"].reason


def test_findings_see_a_damaged_journal(run):
    """A journal with garbage in its pages is found."""
    path = run.directory / FILE_NAME
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    assert [item.file for item in findings(run.directory)][:1] == [FILE_NAME]


def test_findings_refuse_what_is_not_a_run(tmp_path):
    """A folder that is no run is named as such."""
    with pytest.raises(NotARun):
        findings(tmp_path)
