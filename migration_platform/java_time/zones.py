"""Zones: their ids, their names in English, and their distance to UTC."""

import re
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from migration_platform.java_time.names import ZONE_NAMES

_NO_ZONES = frozenset(["localtime", "Factory"])
"""Names of the machine's own zone and of one that nobody has set; Java knows neither."""


@cache
def all_zones() -> frozenset[str]:
    """Give the ids of all zones."""
    return frozenset(available_timezones()) - _NO_ZONES


def zone_names(full: bool, zone: ZoneInfo) -> dict[str, int]:
    """Give the names that mean one distance to UTC, in seconds; the zone's own are among them."""
    names = {long if full else short: minutes * 60 for short, (minutes, long) in ZONE_NAMES.items()}
    return names | own_names(full, zone)


def own_names(full: bool, zone: ZoneInfo) -> dict[str, int]:
    """Give the English names that a zone itself has, in winter and in summer."""
    names = {}
    for month in (1, 7):  # Half a year apart: the names of winter and summer.
        moment = datetime(2024, month, 1, tzinfo=zone)
        name = moment.tzname() or ""
        if full:
            minutes, name = ZONE_NAMES.get(name, (None, ""))
            if minutes is not None and minutes * 60 != offset_seconds(moment):
                continue
        if re.fullmatch("[A-Za-z][A-Za-z -]+", name):
            names[name] = offset_seconds(moment)
    return names


def offset_seconds(moment: datetime) -> int:
    """Give a moment's distance to UTC."""
    distance = moment.utcoffset()
    return 0 if distance is None else distance // timedelta(seconds=1)
