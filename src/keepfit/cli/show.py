"""keepfit show."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keepfit.cli.parts import partition_lines
from keepfit.cli.prefix import prefix_lines
from keepfit.cli.rehearsal import rehearsal_lines
from keepfit.cli.sizes import folder_bytes, size
from keepfit.history.table import Column, clean, counted, duration, fit_columns, moment, number, shortened

if TYPE_CHECKING:
    from keepfit.cli.folder import RunFolder
    from keepfit.cli.page import Page
    from keepfit.history import History
    from keepfit.history.rows import FitRow
    from keepfit.journal import CheckpointRecord, EventRecord

EVENTS_SHOWN = 12
# These come with every process and every fit; the table of fits says it already.
ROUTINE_EVENTS = {"opened", "closed", "replayed", "phase"}
FACT_LENGTH = 100


def show_folder(folder: RunFolder, page: Page) -> None:
    """Write what is in a run folder."""
    _header(folder, page)
    _fits(folder.history, page)
    _trained(folder, page)
    _prefixes(folder, page)
    _partitions(folder, page)
    _rehearsal(folder, page)
    _metrics(folder.history, page)
    _checkpoints(folder, page)
    _approximate(folder.history, page)
    _events(folder.history, page)


def _header(folder: RunFolder, page: Page) -> None:
    page.heading(str(folder.directory))
    page.line(
        f"format {folder.format}, created {moment(folder.created)}" if folder.created else f"format {folder.format}"
    )
    if folder.history.lineage:
        page.line(clean(str(folder.history.lineage)))
    for title, value in (("model", folder.model), ("seed", folder.meta.get("seed")), ("engine", folder.plan)):
        if value not in (None, {}, ""):
            page.line(f"{title}: {model_facts(value) if title == 'model' else facts(value)}")
    total, objects = folder_bytes(folder.directory), folder_bytes(folder.objects)
    page.line(f"size: {size(total)}, of it {size(objects)} in objects")
    if folder.writer:
        page.line(f"open in {folder.writer}")


def facts(value: Any) -> str:
    """Return plain data in one short line: ``plan fused, backend jax, keras 3.15.1``."""
    if isinstance(value, Mapping):
        return ", ".join(
            facts(inner) if isinstance(inner, Mapping) else f"{clean(str(name))} {facts(inner)}"
            for name, inner in value.items()
            if inner is not None
        )
    text = value if isinstance(value, str) else json.dumps(value)
    return shortened(clean(text), FACT_LENGTH)


def model_facts(signature: Any) -> str:
    """Return what is known of a model in one line.

    Args:
        signature: Name of each variable -> [shape, dtype]; anything else is printed as it is.
    """
    try:
        sizes = [math.prod(int(extent) for extent in shape) for shape, _ in signature.values()]
        dtypes = sorted({str(dtype) for _, dtype in signature.values()})
    except (AttributeError, TypeError, ValueError):
        return facts(signature)
    return clean(f"{counted(len(sizes), 'variable')}, {counted(sum(sizes), 'value')} ({', '.join(dtypes)})")


def _fits(history: History, page: Page) -> None:
    page.heading("Fits")
    if not history.fits:
        page.line("none yet")
    else:
        page.table(fit_columns(history.fits))
    if history.epochs:
        counts = (counted(len(history.epochs), "epoch"), counted(history.steps, "step"))
        page.line(f"{', '.join(counts)}, {counted(history.samples, 'sample')} in {duration(history.seconds)}")
    if history.closed:
        page.heading("Closed branches")
        page.table(
            [Column("branch", tuple(str(r.branch) for r in history.closed), right=True), *fit_columns(history.closed)]
        )


def _trained(folder: RunFolder, page: Page) -> None:
    """Write which part of the model trained in which fits, at which rates, where that is more than one number."""
    lines = trained_lines(folder.model, folder.history.fits)
    if lines:
        page.heading("Trained")
        for line in lines:
            page.line(line)


def _prefixes(folder: RunFolder, page: Page) -> None:
    """Write in which fits frozen layers were computed once for each sample, and why not in others that froze some."""
    lines = prefix_lines(record for record in folder.history.records if record.branch == 0)
    if lines:
        page.heading("Frozen layers")
        for line in lines:
            page.line(clean(line))


def _partitions(folder: RunFolder, page: Page) -> None:
    """Write which partitions the newest fit trains on, and where it stands in them."""
    records = [record for record in folder.history.records if record.branch == 0]
    lines = partition_lines(records, folder.checkpoints)
    if lines:
        page.heading("Partitions")
        for line in lines:
            page.line(clean(line))


def _rehearsal(folder: RunFolder, page: Page) -> None:
    """Write which samples are kept of which fits, and which fits had earlier ones mixed in."""
    records = [record for record in folder.history.records if record.branch == 0]
    lines = rehearsal_lines(folder.meta, records)
    if lines:
        page.heading("Rehearsal")
        for line in lines:
            page.line(clean(line))


def trained_lines(signature: Any, fits: Iterable[FitRow]) -> list[str]:
    """Return a line for fits in a row that trained alike; none where all did, with one rate for everything.

    Args:
        signature: Name of each variable of the model -> [shape, dtype].
        fits: In their order.
    """
    groups: list[tuple[int, int, str, bool]] = []
    for fit in fits:
        text = _trained_text(signature, fit)
        if text is None:
            continue
        if groups and groups[-1][2] == text:
            groups[-1] = (groups[-1][0], fit.number, text, groups[-1][3])
        else:
            groups.append((fit.number, fit.number, text, isinstance(fit.rate, Mapping) or bool(fit.multipliers)))
    if len({text for *_, text, _ in groups}) < 2 and not any(told for *_, told in groups):
        return []
    return [
        f"{f'fit {first}' if first == last else f'fits {first} to {last}'}: {text}" for first, last, text, _ in groups
    ]


def _trained_text(signature: Any, fit: FitRow) -> str | None:
    if not fit.trained:
        return None
    try:
        kinds = {**signature, **fit.variables}
        sizes = {name: math.prod(int(extent) for extent in kind[0]) for name, kind in kinds.items() if kind is not None}
    except (AttributeError, TypeError, ValueError):
        return None
    values = counted(sum(sizes.get(name, 0) for name in fit.trained), "value")
    text = f"{values} in {counted(len(fit.trained), 'variable')}"
    if isinstance(fit.rate, Mapping):
        text += f", rate by {_schedule_name(fit.rate)}"
    if fit.multipliers:
        shares = [fit.multipliers.get(name, 1.0) for name in fit.trained]
        text += f", times {min(shares):.3g} to {max(shares):.3g} by layer"
    return text


def _schedule_name(config: Mapping[str, Any]) -> str:
    """Return a schedule's class, with that of the one it leads to: ``WarmUp to Cosine``."""
    name = str(config.get("class", "schedule")).rpartition(".")[2].rpartition(">")[2]
    inner = next((item for item in config.values() if isinstance(item, Mapping) and "class" in item), None)
    return clean(name if inner is None else f"{name} to {_schedule_name(inner)}")


def _metrics(history: History, page: Page) -> None:
    if not history.metrics:
        return
    page.heading("Metrics")
    page.table(metric_columns(history))


def metric_columns(history: History) -> list[Column]:
    """Return the table of metrics: last value, lowest and highest, each with the epochs finished by then."""
    last: list[str] = []
    ends: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    for values in history.logs.values():
        there = [
            (value, epoch.epoch + 1) for value, epoch in zip(values, history.epochs, strict=True) if value is not None
        ]
        finite = [(value, after) for value, after in there if math.isfinite(value)]
        last.append(number(there[-1][0]))
        for highest, cells in ends.items():
            # The first of equal ones, as callbacks see it.
            best = (max if highest else min)(finite, key=lambda pair: pair[0], default=None)
            cells.append((number(best[0]), str(best[1])) if best else ("-", "-"))
    low, high = ends[False], ends[True]
    return [
        Column("metric", tuple(map(clean, history.metrics)), text=True),
        Column("last", tuple(last), right=True),
        Column("lowest", tuple(value for value, _ in low), right=True),
        Column("after epoch", tuple(after for _, after in low), right=True, rank=1),
        Column("highest", tuple(value for value, _ in high), right=True),
        Column("after epoch", tuple(after for _, after in high), right=True, rank=1),
    ]


def _checkpoints(folder: RunFolder, page: Page) -> None:
    page.heading("Checkpoints")
    if not folder.checkpoints:
        page.line("none yet")
        return
    page.table(checkpoint_columns(folder.checkpoints))
    covered = max((point.position.step for point in folder.checkpoints if point.branch == 0), default=0)
    reached = folder.history.epochs[-1].step if folder.history.epochs else 0
    if reached > covered and folder.writer is None:
        page.line(f"what was trained after step {covered} is redone when the run goes on")


def checkpoint_columns(checkpoints: Sequence[CheckpointRecord]) -> list[Column]:
    """Return the table of checkpoints."""

    def numbers(title: str, values: Iterable[object]) -> Column:
        return Column(title, tuple(map(str, values)), right=True)

    columns = [
        numbers("id", (point.id for point in checkpoints)),
        numbers("fit", (point.fit for point in checkpoints)),
        Column("at", tuple(point.kind for point in checkpoints)),
        numbers("epochs", (point.position.epoch for point in checkpoints)),
        numbers("steps", (point.position.step for point in checkpoints)),
        numbers("size", (size(point.size_bytes) for point in checkpoints)),
        Column("note", tuple(_note(point) for point in checkpoints), text=True),
        Column("created", tuple(moment(point.created) for point in checkpoints), rank=1),
    ]
    return [column for column in columns if column.title != "note" or any(column.cells)]


def _note(point: CheckpointRecord) -> str:
    words = [f"branch {point.branch}"] if point.branch else []
    words += ["pinned"] if point.pinned else []
    words += [] if point.good else ["loss not finite"]
    return ", ".join(words)


def _approximate(history: History, page: Page) -> None:
    sentences = [f"fit {row.number}: {sentence}" for row in history.fits for sentence in row.approximate]
    told = {f"Fit {row.number}: {sentence}." for row in history.fits for sentence in row.approximate}
    events = [each for each in history.events if each.kind == "approximate" and each.message not in told]
    sentences += [f"{_place(event)}{event.message}" for event in events]
    if sentences:
        page.heading("Not exact")
        for sentence in dict.fromkeys(map(clean, sentences)):
            page.line(sentence)


def _events(history: History, page: Page) -> None:
    told = [event for event in history.events if event.kind not in ROUTINE_EVENTS | {"approximate"}]
    if not told:
        return
    shown = told[-EVENTS_SHOWN:]
    page.heading(f"Events (the last {len(shown)} of {len(told)})" if len(told) > len(shown) else "Events")
    for event in shown:
        page.line(clean(f"{moment(event.time)}  {event.kind}: {_place(event)}{event.message}"))


def _place(event: EventRecord) -> str:
    # A message that names its fit also says where in it.
    if event.fit is None or f"fit {event.fit}" in event.message.lower():
        return ""
    return f"fit {event.fit}: " if event.step is None else f"fit {event.fit}, step {event.step} of the run: "
