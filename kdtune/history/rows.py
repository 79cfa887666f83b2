"""Read the events of a sweep, and other typed records, from the JSON rows of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from kdtune.errors import DamageError, Problem
from kdtune.history.events import Asked, Costed, Ended, EpochRow, Known, LedgerEvent, Outcome
from kdtune.history.promotion import Promoted
from kdtune.history.race import Looked
from kdtune.parse import printable
from kdtune.store.seal import REMEDY, passed_over

Parsed = TypeVar("Parsed")


def ledger_event(row: Mapping[str, Any], path: Path) -> LedgerEvent:
    """Return the event of a ledger's row. Raises DamageError, which names `path`, if the row is invalid."""
    match row.get("event"):
        case "asked":
            return parsed(Asked, row, path)
        case "ended":
            return parsed(Ended, {**row, "outcome": parsed(Outcome, row, path)}, path)
        case "known":
            return parsed(Known, row, path)
        case "costed":
            return parsed(Costed, row, path)
        case "looked":
            return parsed(Looked, row, path)
        case "promoted":
            return parsed(Promoted, row, path)
        case _:
            raise DamageError([Problem(str(path), f"holds a row that is not a ledger event; {REMEDY}")])


def epoch_row(row: Mapping[str, Any], path: Path) -> EpochRow:
    """Return a row of epochs.jsonl. Raises DamageError, which names `path`, if the row is invalid."""
    return parsed(EpochRow, row, path)


def readable(
    read: Callable[[Mapping[str, Any], Path], Parsed], rows: Iterable[Mapping[str, Any]], path: Path
) -> Iterator[Parsed]:
    """Yield what `read` makes of each row. A damaged row is skipped, and a note names `path`."""
    for row in rows:
        found = passed_over(partial(read, row, path), None)
        if found is not None:
            yield found


def parsed(kind: type[Parsed], record: Mapping[str, Any], path: Path) -> Parsed:
    """Return `record` as an object of `kind`. Raises DamageError, which names `path` and the first error."""
    try:
        return _adapter(kind).validate_python(record)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = printable(f"{where}: {first['msg']}" if where else first["msg"])
        raise DamageError([Problem(str(path), f"is damaged: {what}; {REMEDY}")]) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
