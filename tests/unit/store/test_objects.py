from __future__ import annotations

import errno

import numpy as np
import pytest

from keepfit.errors import DamagedObject
from keepfit.store import LARGE_BYTES, Disk, Store

LARGE = np.arange(LARGE_BYTES // 8, dtype=np.float64)


class Counting(Disk):
    """Counts what is written and synced."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.directories = 0

    def write(self, path, chunks):
        self.written.append(path.name)
        super().write(path, chunks)

    def sync_directory(self, path):
        self.directories += 1
        super().sync_directory(path)


def flip(path, offset=-1):
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_store_gives_back_what_was_written(tmp_path):
    """Large and small tensors come back by name with their bits, and can be changed apart from one another."""
    tensors = {"large": LARGE, "twin": LARGE, "small": np.float32(3), "same": np.float32(3), "empty": np.zeros((0, 2))}
    store = Store(tmp_path / "objects")
    manifest = store.write(tensors)
    found = Store(tmp_path / "objects").read(manifest)
    assert list(found) == list(tensors)
    for name, expected in tensors.items():
        assert found[name].tobytes() == np.asarray(expected).tobytes()
        assert found[name].shape == np.shape(expected)
    found["large"][0] = -1
    found["small"][...] = -1
    assert found["twin"][0] == 0
    assert found["same"] == 3


def test_read_takes_only_the_names_asked_for(tmp_path):
    """A part of a manifest can be read."""
    store = Store(tmp_path)
    manifest = store.write({"a": LARGE, "b": np.ones(3)})
    assert list(store.read(manifest, ["b"])) == ["b"]


def test_equal_tensors_are_one_file_and_small_ones_share_one(tmp_path):
    """A large tensor is stored once for all names and checkpoints; small ones lie together."""
    disk = Counting()
    store = Store(tmp_path, disk)
    first = store.write({"a": LARGE, "b": LARGE, "c": np.ones(3), "d": np.zeros(2)})
    assert len(store.files(first)) == len(disk.written) == 2
    second = store.write({"a": LARGE, "c": np.full(3, 2.0)})
    assert len(disk.written) == 3
    assert first["a"] == second["a"]
    store.write({"a": LARGE, "c": np.full(3, 2.0)})
    assert len(disk.written) == 3


def test_an_equal_file_of_an_earlier_process_is_used_and_made_durable(tmp_path):
    """A file that a killed process renamed but may not have synced is not trusted to be durable."""
    Store(tmp_path).write({"a": LARGE})
    disk = Counting()
    store = Store(tmp_path, disk)
    store.write({"a": LARGE})
    assert disk.written == []
    assert disk.directories == 1
    store.write({"a": LARGE})
    assert disk.directories == 1


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_damaged_equal_file_is_written_again(tmp_path, damage):
    """A new checkpoint does not rest on a file that rotted since."""
    manifest = Store(tmp_path).write({"a": LARGE})
    damage(tmp_path / manifest["a"][0])
    store = Store(tmp_path)
    store.write({"a": LARGE})
    assert store.verify(manifest) == []


@pytest.mark.parametrize("offset", [-1, 3, 20])
@pytest.mark.parametrize("name", ["large", "small"])
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, name, offset):
    """Damage to data, length or header is a DamagedObject that names file and tensor."""
    store = Store(tmp_path)
    manifest = store.write({"large": LARGE, "small": np.arange(3.0)})
    flip(tmp_path / manifest[name][0], offset)
    with pytest.raises(DamagedObject, match=name) as caught:
        store.read(manifest)
    assert manifest[name][0] in caught.value.file
    assert [(item.file, item.tensors) for item in store.verify(manifest)] == [(manifest[name][0], (name,))]


def test_a_missing_or_unreadable_file_is_damage(tmp_path, monkeypatch):
    """A file that is gone and a bad sector are damage; a process out of descriptors is not."""
    store = Store(tmp_path)
    manifest = store.write({"a": LARGE})
    for number, expected in ((errno.EIO, DamagedObject), (errno.EMFILE, OSError)):

        def refuse(disk, path, number=number):
            raise OSError(number, "no")

        with monkeypatch.context() as patch:
            patch.setattr(Disk, "read", refuse)
            with pytest.raises(expected) as caught:
                store.read(manifest)
            assert isinstance(caught.value, DamagedObject) is (expected is DamagedObject)
    (tmp_path / manifest["a"][0]).unlink()
    with pytest.raises(DamagedObject, match="missing"):
        store.read(manifest)


def test_delete_removes_files_and_what_lies_aside(tmp_path):
    """Removal takes leftovers of interrupted writes too, and does not mind what is gone."""
    store = Store(tmp_path)
    manifest = store.write({"a": LARGE})
    (name,) = store.files(manifest)
    (tmp_path / (name + ".part")).touch()
    store.delete([name, "never.safetensors"])
    assert list(tmp_path.iterdir()) == []


def test_prepare_refuses_what_is_not_numbers(tmp_path):
    """Nothing is written when a tensor is no tensor."""
    with pytest.raises(TypeError):
        Store(tmp_path / "objects").write({"a": LARGE, "b": "text"})
    assert not (tmp_path / "objects").exists()
