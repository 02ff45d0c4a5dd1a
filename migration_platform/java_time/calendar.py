"""The fields of a date and a time as Java knows them, and the moment that they make.

Java's rules of resolving (its SMART style) hold, with one difference: what Java would bend is
refused: the 30th of February, which Java takes for the month's last day, 24 o'clock, an hour that
the clocks skip, and digits below the millisecond.

The calendar of Python ends with the year 9999. Years repeat after 400, weekdays and the rules of
zones included, so years beyond it are computed some cycles away.
"""

from collections.abc import Callable, Set
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Fields = dict[str, Any]
"""What a text says, by the names of `VALUES`, and its offset in seconds or its zone's name."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
_DAY_MS = 86_400_000
_CYCLE_YEARS = 400
_CYCLE_MS = 146_097 * _DAY_MS
# A year from each end, so that no zone leaves the calendar.
_FIRST_MS = (datetime(2, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
_LAST_MS = (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
_EPOCH_DAY_OF_JULIAN = 40_587
TIME_FIELDS = frozenset(
    {
        *("half", "hour", "clock_hour", "hour_of_half", "clock_hour_of_half"),
        *("minute", "second", "nano", "milli_of_day", "nano_of_day"),
    }
)
_WEEKDAY_FIELDS = frozenset(["day_of_week", "localized_day"])
_ZONE_FIELDS = frozenset(["offset", "zone"])


class NotDateError(ValueError):
    """A text or a timestamp that a pattern cannot hold; the reason goes behind the value."""


# -- a moment, field by field ----------------------------------------------------------------------


class Moment:
    """A local time, `years` years away from where its `local` stands in Python's calendar."""

    __slots__ = ("local", "years")

    def __init__(self, local: datetime, years: int):
        self.local, self.years = local, years

    @property
    def year(self) -> int:
        """The year as Java counts: before the year 1 is 0."""
        return self.local.year + self.years


def moment_at(millis: int, zone: ZoneInfo) -> Moment:
    """Give the local time of a number of milliseconds since 1970."""
    cycles = _cycles_to(millis)
    moment = EPOCH + (millis - cycles * _CYCLE_MS) * MILLISECOND
    return Moment(moment.astimezone(zone), cycles * _CYCLE_YEARS)


def _last_day_of_week(day: date) -> date:
    return day + timedelta(days=6 - _place_in_week(day))


def _week_based_year(moment: Moment) -> int:
    """Give the year of the week's last day: the week with January 1 is the first of its year."""
    return _last_day_of_week(moment.local.date()).year + moment.years


def _week(moment: Moment) -> int:
    return (_last_day_of_week(moment.local.date()).timetuple().tm_yday - 1) // 7 + 1


def _week_of_month(moment: Moment) -> int:
    return (moment.local.day - 1 + _place_in_week(moment.local.date().replace(day=1))) // 7 + 1


def _nano_of_day(moment: Moment) -> int:
    local = moment.local
    seconds = local.hour * 3600 + local.minute * 60 + local.second
    return (seconds * 1_000_000 + local.microsecond) * 1000


def _julian_day(moment: Moment) -> int:
    days = moment.local.date().toordinal() - date(1970, 1, 1).toordinal()
    return days + moment.years // _CYCLE_YEARS * 146_097 + _EPOCH_DAY_OF_JULIAN


VALUES: dict[str, Callable[[Moment], int]] = {
    "era": lambda moment: int(moment.year > 0),
    "year_of_era": lambda moment: moment.year if moment.year > 0 else 1 - moment.year,
    "year": lambda moment: moment.year,
    "quarter": lambda moment: (moment.local.month + 2) // 3,
    "month": lambda moment: moment.local.month,
    "day_of_year": lambda moment: moment.local.timetuple().tm_yday,
    "day": lambda moment: moment.local.day,
    "day_of_week": lambda moment: moment.local.isoweekday(),
    "localized_day": lambda moment: _place_in_week(moment.local.date()) + 1,
    "week_based_year": _week_based_year,
    "week": _week,
    "week_of_month": _week_of_month,
    "julian_day": _julian_day,
    "half": lambda moment: moment.local.hour // 12,
    "hour": lambda moment: moment.local.hour,
    "clock_hour": lambda moment: moment.local.hour or 24,
    "hour_of_half": lambda moment: moment.local.hour % 12,
    "clock_hour_of_half": lambda moment: moment.local.hour % 12 or 12,
    "minute": lambda moment: moment.local.minute,
    "second": lambda moment: moment.local.second,
    "nano": lambda moment: moment.local.microsecond * 1000,
    "milli_of_day": lambda moment: _nano_of_day(moment) // 1_000_000,
    "nano_of_day": _nano_of_day,
}


# -- from fields to a moment ---------------------------------------------------------------------


def lack_of(fields: Set[str], *, may_lack_time: bool) -> str | None:
    """Name what fields do not tell of a date and a time; None if they tell both."""
    return _lack_of_date(fields) or (
        None if may_lack_time and not fields & TIME_FIELDS else _lack_of_time(fields)
    )


def _lack_of_date(fields: Set[str]) -> str | None:
    if "julian_day" in fields:
        return None
    has_weekday = bool(fields & _WEEKDAY_FIELDS)
    if {"week_based_year", "week"} <= fields and has_weekday:
        return None
    if not fields & {"year", "year_of_era"}:
        of_weeks = ", as YYYY is that of its weeks; yyyy is meant"
        return "no year" + (of_weeks if "week_based_year" in fields and not has_weekday else "")
    if "day_of_year" in fields:
        return None
    if "month" not in fields:
        return "no month"
    if "day" in fields or ("week_of_month" in fields and has_weekday):
        return None
    return "no day"


def _lack_of_time(fields: Set[str]) -> str | None:
    if fields & {"milli_of_day", "nano_of_day"}:
        return None
    if not fields & {"hour", "clock_hour"}:
        if not fields & {"hour_of_half", "clock_hour_of_half"}:
            return "no hour"
        if "half" not in fields:
            letter = "h" if "clock_hour_of_half" in fields else "K"
            return f"{letter} without a, so that morning and evening are one"
    if "minute" not in fields:
        return "no minute" if fields & {"second", "nano"} else None
    return "no second" if "nano" in fields and "second" not in fields else None


def resolve(fields: Fields, zone: ZoneInfo, has_time: bool) -> int:
    """Turn the fields of a text into milliseconds since 1970.

    Raises:
        NotDateError: they are no moment, contradict each other, or are finer than a millisecond.
    """
    lack = lack_of(fields.keys(), may_lack_time=not has_time)
    if lack:
        raise NotDateError(f"has {lack}")
    try:
        cycles, local = _local(fields)
        # Days beyond their year, such as 9998-730, reach the end of Python's calendar here.
        _refuse_contradictions(fields, Moment(local, cycles * _CYCLE_YEARS))
        millis = _instant(fields, local, zone) + cycles * _CYCLE_MS
    except NotDateError:
        raise
    except (ValueError, OverflowError) as failure:
        raise NotDateError("is no date and time") from failure
    if not -(2**63) <= millis < 2**63:
        raise NotDateError("is beyond what a timestamp holds")
    return millis


def _local(fields: Fields) -> tuple[int, datetime]:
    """Give the local time, and how many cycles of years it is away."""
    cycles, day = _date(fields)
    hour, minute, second, nano = _time(fields)
    if nano % 1_000_000:
        raise NotDateError("is finer than a timestamp, which holds milliseconds")
    return cycles, datetime(day.year, day.month, day.day, hour, minute, second, nano // 1000)


def _date(fields: Fields) -> tuple[int, date]:
    if "julian_day" in fields:
        return _day_at(fields["julian_day"] - _EPOCH_DAY_OF_JULIAN)
    year = fields.get("year")
    if year is None and "year_of_era" in fields:
        of_era = fields["year_of_era"]
        if of_era < 1:
            raise ValueError("no year of an era")
        year = of_era if fields.get("era", 1) else 1 - of_era
    if year is None:
        return _date_of_week(fields)
    cycles, near = _near(year)
    if "month" in fields and "day" in fields:
        return cycles, date(near, fields["month"], fields["day"])
    if "day_of_year" in fields:
        return cycles, date(near, 1, 1) + timedelta(days=fields["day_of_year"] - 1)
    if {"month", "week_of_month"} <= fields.keys() and fields.keys() & _WEEKDAY_FIELDS:
        first = date(near, fields["month"], 1)
        days = (fields["week_of_month"] - 1) * 7 + _localized_day(fields) - 1
        return cycles, first + timedelta(days=days - _place_in_week(first))
    return _date_of_week(fields)


def _date_of_week(fields: Fields) -> tuple[int, date]:
    cycles, near = _near(fields["week_based_year"])
    first = date(near, 1, 1)
    days = (fields["week"] - 1) * 7 + _localized_day(fields) - 1
    return cycles, first + timedelta(days=days - _place_in_week(first))


def _near(year: int) -> tuple[int, int]:
    """Give a year of Python's calendar that is like this one, and how many cycles away it is."""
    if 2 <= year <= 9998:
        return 0, year
    near = year % _CYCLE_YEARS + (_CYCLE_YEARS if year < 2 else 23 * _CYCLE_YEARS)
    return (year - near) // _CYCLE_YEARS, near


def _day_at(epoch_day: int) -> tuple[int, date]:
    cycles = _cycles_to(epoch_day * _DAY_MS)
    return cycles, date(1970, 1, 1) + timedelta(days=epoch_day - cycles * 146_097)


def _cycles_to(millis: int) -> int:
    """Say how many cycles of years away from Python's calendar a moment is."""
    if millis < _FIRST_MS:
        return (millis - _FIRST_MS) // _CYCLE_MS
    return max(0, (millis - _LAST_MS) // _CYCLE_MS + 1)


def _place_in_week(day: date) -> int:
    """Count the days of the week before it; weeks begin on Sunday."""
    return day.isoweekday() % 7


def _localized_day(fields: Fields) -> int:
    """Give 1 for Sunday to 7."""
    day = fields["localized_day"] if "localized_day" in fields else fields["day_of_week"] % 7 + 1
    if not 1 <= day <= 7:
        raise ValueError("no day of the week")
    return day


def _time(fields: Fields) -> tuple[int, int, int, int]:
    """Give the hour, the minute, the second, and what is left in nanoseconds."""
    hour = fields.get("hour")
    if hour is None and "clock_hour" in fields:
        hour = _at_most(fields["clock_hour"], 24) % 24
    if hour is None and "half" in fields:
        if "hour_of_half" in fields:
            hour = fields["half"] * 12 + _at_most(fields["hour_of_half"], 11)
        elif "clock_hour_of_half" in fields:
            hour = fields["half"] * 12 + _at_most(fields["clock_hour_of_half"], 12) % 12
    if hour is None and fields.keys() & {"nano_of_day", "milli_of_day"}:
        nanos = fields.get("nano_of_day", fields.get("milli_of_day", 0) * 1_000_000)
        seconds, nano = divmod(_at_most(nanos, 24 * 3600 * 10**9 - 1), 10**9)
        return seconds // 3600, seconds // 60 % 60, seconds % 60, fields.get("nano", nano)
    return hour or 0, fields.get("minute", 0), fields.get("second", 0), fields.get("nano", 0)


def _at_most(value: int, most: int) -> int:
    if not 0 <= value <= most:
        raise ValueError(f"{value} is above {most}")
    return value


def _refuse_contradictions(fields: Fields, moment: "Moment") -> None:
    for field, value in fields.items():
        if field in _ZONE_FIELDS:
            continue
        if field in ("clock_hour", "clock_hour_of_half"):
            # 0 is taken for the highest, 24 or 12.
            value = value or (24 if field == "clock_hour" else 12)
        if value != VALUES[field](moment):
            raise NotDateError(f"contradicts itself in its {field.replace('_', ' ')}")


def _instant(fields: Fields, local: datetime, zone: ZoneInfo) -> int:
    if "zone" in fields:
        zone = ZoneInfo(fields["zone"])
    if "offset" in fields:
        distance = timedelta(seconds=fields["offset"])
        moment = local.replace(tzinfo=UTC) - distance
        if "zone" in fields and moment.astimezone(zone).utcoffset() != distance:
            raise NotDateError("names a zone and an offset that do not fit")
    else:
        return to_millis(local, zone)
    return (moment - EPOCH) // MILLISECOND


def to_millis(local: datetime, zone: ZoneInfo) -> int:
    """Give the milliseconds since 1970 of a local time; of an hour that clocks repeat the first.

    Raises:
        NotDateError: clocks skip it in this zone.
    """
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) != local:
        raise NotDateError(f"does not exist in {zone.key}")
    return (moment - EPOCH) // MILLISECOND
