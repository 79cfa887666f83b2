"""Quantities in words for people."""

from datetime import UTC, datetime


def duration(seconds: float) -> str:
    """Return a time span in words, as in `40 s`, `12 min`, `3 h 20 min`, `2.5 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{seconds / 86400:.1f} days"


def moment(at: float) -> str:
    """Return an instant, given in seconds since 1970, as in `2026-11-28 17:22 UTC`, else `an unknown time`.

    The text does not depend on the machine's time zone.
    """
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
