"""The English names that Java's DateTimeFormatter reads and writes (locale en-US, Java 17)."""

from collections.abc import Iterable

from migration_platform.java_time.patterns import Style, Words

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_QUARTERS = ("1st quarter", "2nd quarter", "3rd quarter", "4th quarter")


def _numbered(names: Iterable[str], first: int = 1) -> dict[int, str]:
    return dict(enumerate(names, first))


WORDS: dict[tuple[str, Style], dict[int, str]] = {
    ("month", "short"): _numbered(name[:3] for name in _MONTHS),
    ("month", "full"): _numbered(_MONTHS),
    ("month", "narrow"): _numbered(name[0] for name in _MONTHS),
    ("day_of_week", "short"): _numbered(name[:3] for name in _DAYS),
    ("day_of_week", "full"): _numbered(_DAYS),
    ("day_of_week", "narrow"): _numbered(name[0] for name in _DAYS),
    ("quarter", "short"): _numbered(f"Q{name[0]}" for name in _QUARTERS),
    ("quarter", "full"): _numbered(_QUARTERS),
    ("quarter", "narrow"): _numbered(name[0] for name in _QUARTERS),
    ("era", "short"): _numbered(("BC", "AD"), 0),
    ("era", "full"): _numbered(["Before Christ", "Anno Domini"], 0),
    ("era", "narrow"): _numbered(["B", "A"], 0),
    ("half", "short"): _numbered(["AM", "PM"], 0),
}

ZONE_NAMES = {
    "UTC": (0, "Coordinated Universal Time"),
    "GMT": (0, "Greenwich Mean Time"),
    "WET": (0, "Western European Standard Time"),
    "WEST": (60, "Western European Summer Time"),
    "CET": (60, "Central European Standard Time"),
    "CEST": (120, "Central European Summer Time"),
    "EET": (120, "Eastern European Standard Time"),
    "EEST": (180, "Eastern European Summer Time"),
    "MSK": (180, "Moscow Standard Time"),
    "EAT": (180, "East Africa Time"),
    "CAT": (120, "Central Africa Time"),
    "PKT": (300, "Pakistan Standard Time"),
    "WIB": (420, "Western Indonesia Time"),
    "HKT": (480, "Hong Kong Standard Time"),
    "JST": (540, "Japan Standard Time"),
    "KST": (540, "Korean Standard Time"),
    "AWST": (480, "Australian Western Standard Time"),
    "ACDT": (630, "Australian Central Daylight Time"),
    "AEST": (600, "Australian Eastern Standard Time"),
    "AEDT": (660, "Australian Eastern Daylight Time"),
    "NZST": (720, "New Zealand Standard Time"),
    "NZDT": (780, "New Zealand Daylight Time"),
    "NDT": (-150, "Newfoundland Daylight Time"),
    "ADT": (-180, "Atlantic Daylight Time"),
    "EST": (-300, "Eastern Standard Time"),
    "EDT": (-240, "Eastern Daylight Time"),
    "CDT": (-300, "Central Daylight Time"),
    "MST": (-420, "Mountain Standard Time"),
    "MDT": (-360, "Mountain Daylight Time"),
    "PST": (-480, "Pacific Standard Time"),
    "PDT": (-420, "Pacific Daylight Time"),
    "AKST": (-540, "Alaska Standard Time"),
    "AKDT": (-480, "Alaska Daylight Time"),
}
"""Names of zones that mean one distance to UTC, in minutes, and their long forms.

Others have two meanings or more, as IST has in India, Israel and Ireland.
"""


def is_ambiguous(element: Words) -> bool:
    """Whether a name of the field stands for several values, as J does for three months."""
    names = WORDS[element.field, element.style]
    return len(set(names.values())) < len(names)
