"""The recipe of a fit, and how a recorded one differs from the one given now."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keepfit.errors import RecipeChanged
from keepfit.recipe.values import json_text

Pair: TypeAlias = tuple[Any, Any]
Describe: TypeAlias = Callable[[Any, Any], str | None]

_MOST_DIFFERENCES = 5
_LONGEST_SHOWN = 60
_HASH = re.compile(r"(?:[a-z0-9]+:)?([0-9a-f]{8})[0-9a-f]{8,}")


@dataclass(frozen=True)
class Recipe:
    """What one fit was asked to do, as plain data.

    Args:
        strict: What raises where it differs: data, batch size, loss, ...
        warned: What warns and is recorded where it differs: code, closure values, callback config.
        epochs: Length of the fit, 0 or more. Fewer than recorded raise; more are told apart.
        name: The fit's name; another one raises.
    """

    strict: Mapping[str, Any]
    warned: Mapping[str, Any]
    epochs: int
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain data, which must not be changed."""
        return {"strict": self.strict, "warned": self.warned, "epochs": self.epochs, "name": self.name}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_json` gave; keys of a later version are left aside."""
        return cls(
            strict=dict(data.get("strict", {})),
            warned=dict(data.get("warned", {})),
            epochs=int(data.get("epochs", 0)),
            name=data.get("name"),
        )

    @property
    def digest(self) -> str:
        """64 hex digits, the same for equal recipes in every process."""
        return hashlib.sha256(json_text(self.to_json()).encode()).hexdigest()


@dataclass(frozen=True)
class Comparison:
    """How a recipe differs from the recorded one.

    Args:
        raises: Dotted path -> (recorded, now) of what must not change.
        warns: Dotted path -> (recorded, now) of what may, with a word about it.
        more_epochs: Whether more epochs are asked for than were recorded.
    """

    raises: dict[str, Pair] = field(default_factory=dict)
    warns: dict[str, Pair] = field(default_factory=dict)
    more_epochs: bool = False

    @property
    def same(self) -> bool:
        """Whether nothing must be refused."""
        return not self.raises


def compare(recorded: Recipe, now: Recipe, *, describe: Describe | None = None) -> Comparison:
    """Return the differences between a recorded recipe and the one given now.

    A key that one side lacks counts as None, so that a version that records
    more does not refuse what an earlier one wrote.

    Args:
        recorded: The recipe in the journal.
        now: The recipe of this call.
        describe: Says how two fingerprints of data differ, or None where they stand for equal data.
    """
    raises = dict(_differences("", recorded.strict, now.strict, describe))
    if now.epochs < recorded.epochs:
        raises["epochs"] = (recorded.epochs, now.epochs)
    if now.name != recorded.name:
        raises["name"] = (recorded.name, now.name)
    warns = dict(_differences("", recorded.warned, now.warned, None))
    return Comparison(raises=raises, warns=warns, more_epochs=now.epochs > recorded.epochs)


def is_data(path: str) -> bool:
    """Return whether a fingerprint of data stands at a path: one value, which only a `Describe` takes apart."""
    return path in ("data", "sample_weight") or path.endswith(".data")


def _differences(path: str, recorded: Any, now: Any, describe: Describe | None) -> Iterator[tuple[str, Pair]]:
    if recorded == now or (is_data(path) and _jsoned(recorded) == _jsoned(now)):
        return
    if path == "variables":  # only those that differ from the run's first ones are told
        recorded, now = recorded or {}, now or {}
    if is_data(path):
        same = describe is not None and _both(Mapping, recorded, now) and describe(recorded, now) is None
        if not same:
            yield path, (recorded, now)
    elif _both(Mapping, recorded, now) and recorded.get("class") == now.get("class"):
        recorded, now = ({str(key): item for key, item in each.items()} for each in (recorded, now))
        for key in sorted(set(recorded) | set(now)):
            yield from _differences(f"{path}.{key}" if path else key, recorded.get(key), now.get(key), describe)
    elif _both((list, tuple), recorded, now) and len(recorded) == len(now) and not _texts(recorded, now):
        for index, (old, new) in enumerate(zip(recorded, now, strict=True)):
            yield from _differences(f"{path}.{index}", old, new, describe)
    elif _jsoned(recorded) != _jsoned(now):  # also objects of other classes, whose settings tell nothing together
        yield path, (recorded, now)


def _both(kind: Any, recorded: Any, now: Any) -> bool:
    return isinstance(recorded, kind) and isinstance(now, kind)


def _texts(recorded: Any, now: Any) -> bool:
    """Return whether two values are lists of names, which differ as wholes."""
    return _both((list, tuple), recorded, now) and all(isinstance(item, str) for item in (*recorded, *now))


def _jsoned(value: Any) -> Any:
    """Return a value as it comes back from JSON: tuples as lists, keys as text, 1 and 1.0 alike."""
    return json.loads(json.dumps(value, default=str))


# --- the error ---


def recipe_changed(
    fit: int,
    name: str | None,
    comparison: Comparison,
    *,
    directory: Path | str | None,
    describe: Describe | None = None,
) -> RecipeChanged:
    """Return the error for a fit that was recorded with another recipe.

    Args:
        fit: Number of the fit, 1 or more.
        name: Its recorded name.
        comparison: What `compare` gave, with at least one difference that raises.
        directory: Folder of the run, None without one.
        describe: Says how two fingerprints of data differ.
    """
    differences = comparison.raises
    count = len(differences)
    title = f"Fit {fit} ({json.dumps(name)})" if name else f"Fit {fit}"
    lines = [f"{title} was recorded with another recipe: {count} difference{'s' if count != 1 else ''}."]
    lines += _difference_lines(differences, describe)
    lines += _data_advice(differences, describe)
    lines += _length_advice(differences)
    lines += _ways_on(fit, directory)
    return RecipeChanged("\n".join(lines), fit=fit, differences=dict(differences))


def difference_line(path: str, pair: Pair, *, width: int = 0, describe: Describe | None = None) -> str:
    """Return one difference as one line: ``learning_rate: recorded 0.001, now 0.01``."""
    label = f"{path}:".ljust(width + 1)
    if is_data(path) and describe is not None and _both(Mapping, *pair):
        return f"{label} {describe(*pair)}"
    if _texts(*pair) and (changes := _changed_names(*pair)):
        return f"{label} {changes}"
    recorded, now = (shown(each) for each in pair)
    if recorded == now:  # what was shortened away
        recorded, now = (f"{shown(each)} ({_short_digest(each)})" for each in pair)
    return f"{label} recorded {recorded}, now {now}"


def told_differences(differences: Mapping[str, Pair]) -> str:
    """Return differences as a part of a sentence: each with what was recorded and what is given now."""
    told = [difference_line(path, pair) for path, pair in differences.items()][:_MOST_DIFFERENCES]
    left = len(differences) - len(told)
    return "; ".join([*told, f"and {left} more"] if left else told)


def _changed_names(recorded: Any, now: Any) -> str:
    """Return how two lists of names differ; empty where only their order does."""
    gone, new = ([name for name in one if name not in other] for one, other in ((recorded, now), (now, recorded)))
    parts = [f"{word} {_first(names)}" for word, names in (("without", gone), ("with", new)) if names]
    return f"now {', '.join(parts)}" if parts else ""


def _first(names: list[str]) -> str:
    left = len(names) - 2
    return " and ".join(names[:2]) if left <= 0 else f"{', '.join(names[:2])} and {left} more"


def _difference_lines(differences: Mapping[str, Pair], describe: Describe | None) -> list[str]:
    told = list(differences.items())[:_MOST_DIFFERENCES]
    width = max((len(path) for path, _ in told), default=0)
    lines = [f"  {difference_line(path, pair, width=width, describe=describe)}" for path, pair in told]
    left = len(differences) - len(told)
    return [*lines, f"  and {left} more"] if left else lines


def _data_advice(differences: Mapping[str, Pair], describe: Describe | None) -> list[str]:
    changed = {path: pair for path, pair in differences.items() if is_data(path) and None not in pair}
    if not changed or (describe is not None and all(_is_cast(describe(*pair)) for pair in changed.values())):
        return []
    if "data" in changed and has_grown(*changed["data"]):
        return ['The data has grown. New data in a new process is what mode="append" is for.']
    return ["Was the data split, shuffled or generated without a seed? It must be the same in every process."]


def _is_cast(told: str | None) -> bool:
    """Return whether a description of changed data tells of other dtypes alone, which no seed explains."""
    return all("another dtype" in part for part in (told or "").split("; "))


def _length_advice(differences: Mapping[str, Pair]) -> list[str]:
    recorded, now = differences.get("epochs", (0, 0))
    if now > recorded:
        return ["Only the newest fit can be made longer: later ones began where this one ended."]
    if now < recorded:
        return ["A fit can be made longer, not shorter: to train on in steps, call fit again rather than ask for more."]
    return []


def has_grown(recorded: Any, now: Any) -> bool:
    """Return whether a fingerprint tells of more samples than the recorded one."""
    old, new = _samples(recorded), _samples(now)
    return old is not None and new is not None and new > old


def _samples(fingerprint: Any) -> int | None:
    """Return the number of samples in a fingerprint: ``samples``, or the first axis of the first array in it."""
    if isinstance(fingerprint, Mapping):
        if isinstance(fingerprint.get("samples"), int):
            return int(fingerprint["samples"])
        shape = fingerprint.get("shape")
        if isinstance(shape, (list, tuple)) and shape and isinstance(shape[0], int):
            return int(shape[0])
        fingerprint = list(fingerprint.values())
    if isinstance(fingerprint, (list, tuple)):
        return next((found for each in fingerprint if (found := _samples(each)) is not None), None)
    return None


def _ways_on(fit: int, directory: Path | str | None) -> list[str]:
    before = fit - 1
    branch = f"branch off after fit {before} with" if before else "start again from the state before fit 1 with"
    beside = "runs/try-2" if directory is None else f"{directory}-2"
    return [
        f"Nothing was changed. Keep the recorded fit by giving its recipe again, {branch}",
        f'on_change="branch", or try the new recipe beside it with run.fork({json.dumps(str(beside))}, at={before}).',
    ]


def shown(value: Any) -> str:
    """Return a value short enough for a message: rates as they were typed, hashes as 8 digits."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return _shown_float(value)
    if isinstance(value, str):
        short = _HASH.fullmatch(value)
        return short[1] if short else _cut(json.dumps(value, ensure_ascii=False))
    if isinstance(value, Mapping):
        return _shown_mapping(value)
    if isinstance(value, (list, tuple)):
        text = f"[{', '.join(shown(item) for item in value)}]"
        return text if len(text) <= _LONGEST_SHOWN else "[...]"
    return _cut(str(value))


def _shown_float(value: float) -> str:
    single = np.float32(value) if abs(value) < 3e38 else None
    # A learning rate is held in float32: 0.001, not 0.0010000000474974513.
    return str(single) if single is not None and float(single) == value else repr(value)


def _shown_mapping(value: Mapping[str, Any]) -> str:
    name = value.get("class", value.get("function", value.get("name")))
    rest = [
        f"{key}={shown(item)}"
        for key, item in value.items()
        if key not in ("class", "function", "name") and item is not None and not isinstance(item, Mapping)
    ]
    if not rest and not isinstance(name, str):
        return _cut(", ".join(map(str, value))) or "none"  # of classes, which these are then, the names tell
    text = f"{name}({', '.join(rest)})" if isinstance(name, str) else f"{{{', '.join(rest)}}}"
    if isinstance(name, str) and ("function" in value or len(text) > _LONGEST_SHOWN):
        return name
    return text if len(text) <= _LONGEST_SHOWN else "{...}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _short_digest(value: Any) -> str:
    return hashlib.sha256(json_text(_jsoned(value)).encode()).hexdigest()[:8]
