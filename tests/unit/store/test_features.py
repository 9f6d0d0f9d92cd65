"""Features on disk: whole or not there, ours or untouched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors

from keepfit.store import FeatureFiles, damage_of


class Register:
    """A register that remembers every state it was in."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = [{}]

    def files(self, root: Path) -> FeatureFiles:
        """Return the files as a new process would find them."""
        return FeatureFiles(root, register=self.states[-1], note=self.states.append)


def pieces(*arrays: Any, size: int = 3) -> Iterator[list[Any]]:
    """Yield arrays in pieces of rows."""
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]


FIRST = np.arange(40, dtype="float32").reshape(10, 4)
SECOND = np.arange(10, dtype="int64").astype(ml_dtypes.bfloat16)


def test_arrays_are_found_as_they_were_written(tmp_path: Path) -> None:
    """Shape, dtype and bytes come back, in this process and in the next, mapped and read-only."""
    register = Register()
    written = register.files(tmp_path / "f").write("k", pieces(FIRST, SECOND), 10)
    found = register.files(tmp_path / "f").find("k", 2)
    for arrays in (written, found):
        assert isinstance(arrays, list)
        for array, expected in zip(arrays, (FIRST, SECOND), strict=True):
            assert isinstance(array, np.memmap)
            assert array.dtype == expected.dtype
            assert array.tobytes() == expected.tobytes()
            assert not array.flags.writeable


def test_file_is_read_by_the_tools_of_others(tmp_path: Path) -> None:
    """It is an ordinary safetensors file."""
    Register().files(tmp_path).write("k", pieces(FIRST), 10)
    with safetensors.safe_open(tmp_path / "k-0.safetensors", "np") as file:
        assert np.array_equal(file.get_tensor("feature"), FIRST)


def test_register_has_a_name_before_there_is_a_file(tmp_path: Path) -> None:
    """What a kill leaves at any moment is known as ours: removed by the next process, and never read."""
    register = Register()
    there: list[list[str]] = []

    def killed() -> Iterator[list[Any]]:
        for piece in pieces(FIRST):
            there.append(sorted(path.name for path in tmp_path.iterdir()))
            assert register.states[-1] == ({} if len(there) == 1 else {"k-0.safetensors": None})
            yield piece

    files = register.files(tmp_path)
    files.write("k", killed(), 10)
    assert there == [[], *[["k-0.safetensors.part"]] * 3]
    # Killed amid the writing: the register as it stood then, and half a file.
    (tmp_path / "k-0.safetensors").rename(tmp_path / "k-0.safetensors.part")
    register.states.append({"k-0.safetensors": None})
    after = register.files(tmp_path)
    assert after.find("k", 1) is None
    after.keep_only(["k"])
    assert list(tmp_path.iterdir()) == []
    assert register.states[-1] == {}


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """An error amid the pieces removes what was begun."""

    def failing() -> Iterator[list[Any]]:
        yield [FIRST[:3]]
        raise KeyboardInterrupt

    register = Register()
    with pytest.raises(KeyboardInterrupt):
        register.files(tmp_path).write("k", failing(), 10)
    assert list(tmp_path.iterdir()) == []
    assert register.states[-1] == {}


def test_damage_is_told(tmp_path: Path) -> None:
    """A flipped bit, a missing byte and a missing file are found, by a process that has not checked it yet."""
    register = Register()
    register.files(tmp_path).write("k", pieces(FIRST), 10)
    path, facts = tmp_path / "k-0.safetensors", register.states[-1]["k-0.safetensors"]
    whole = path.read_bytes()
    assert damage_of(path, facts) is None
    for data, words in ((whole[:-1] + b"\x01", "hash"), (whole[:-1], "bytes instead of")):
        path.write_bytes(data)
        found = register.files(tmp_path).find("k", 1)
        assert isinstance(found, str)
        assert words in found
    path.unlink()
    assert "missing" in str(register.files(tmp_path).find("k", 1))


def test_only_registered_files_are_removed(tmp_path: Path) -> None:
    """A file that looks like ours and is not in the register stays."""
    files = Register().files(tmp_path)
    for key in ("a", "b"):
        files.write(key, pieces(FIRST), 10)
    (tmp_path / "c-0.safetensors").write_text("not ours")
    files.keep_only(["b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b-0.safetensors", "c-0.safetensors"]
