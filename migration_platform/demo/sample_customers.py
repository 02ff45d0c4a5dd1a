"""Sample data of the demo's move to PostgreSQL: customers, with columns of every family of types.

A partition is an account, a household or a company, and its rows are people of it. What is said of
the account is static, so a table without static columns has it in each row.
"""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from migration_platform.demo.sample import fill_table
from migration_platform.stores.cassandra.connection import Connection

KEYSPACE = "shop"
TABLE = "customer"
ADDRESS = "address"
COLUMNS = (
    ("account_id", "uuid"),
    ("customer_id", "timeuuid"),
    ("account_name", "text static"),
    ("account_plan", "ascii static"),
    ("name", "text"),
    ("email", "text"),
    ("country", "ascii"),
    ("active", "boolean"),
    ("born", "date"),
    ("registered", "timestamp"),
    ("call_after", "time"),
    ("membership", "duration"),
    ("points", "bigint"),
    ("orders", "int"),
    ("discount_percent", "smallint"),
    ("priority", "tinyint"),
    ("rating", "float"),
    ("churn_risk", "double"),
    ("credit", "decimal"),
    ("spent_cents", "varint"),
    ("last_ip", "inet"),
    ("avatar", "blob"),
    ("tags", "set<text>"),
    ("phones", "list<text>"),
    ("recent_orders", "list<bigint>"),
    ("preferences", "map<text, text>"),
    ("place", "tuple<double, double>"),
    ("billing", f"frozen<{ADDRESS}>"),
    ("addresses", f"map<text, frozen<{ADDRESS}>>"),
    ("taste", "vector<float, 4>"),
)
MOST_PEOPLE = 5
ALWAYS_KNOWN = ("account_id", "customer_id", "account_name", "account_plan", "name", "country")
_NULL_SHARE = 0.08
_PEOPLE: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "IN": ("Jaipur", "302001", "+91", ("Asha Sharma", "राम मीणा", "Priya Nair 🌸", "Vikram Rao")),
    "DE": ("Köln", "50667", "+49", ("Jürgen Müller", "Anna Weiß", "Sofie Groß 🚲", "Max Lehmann")),
    "BR": ("São Paulo", "01310-100", "+55", ("João Araújo", "Ana Luíza ⚽", "Caio Nunes")),
    "JP": ("京都", "600-8216", "+81", ("佐藤 さくら 🍣", "Kenji Itō", "鈴木 一郎")),
    "NG": ("Lagos", "101233", "+234", ("Chidi Okafor", "Ngozi Adé 💃🏾", "Tunde Bello")),
    "US": (
        "O'Fallon",
        "63366",
        "+1",
        ("Zoë\tSmith", "José García 👨\u200d👩\u200d👧", 'Al "Rock"'),
    ),
}
_SHARES = (34, 21, 16, 12, 9, 8)
_TAGS = ("vip", "newsletter", "returns often", "wholesale", "student", "🎁 gift buyer")
_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def create_tables(connection: Connection) -> None:
    """Make the keyspace, the type and the table where they are missing."""
    execute = connection.session.execute
    execute(
        f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    execute(
        f"CREATE TYPE IF NOT EXISTS {KEYSPACE}.{ADDRESS} "
        "(street text, city text, postcode text, floors frozen<set<int>>)"
    )
    columns = ", ".join(f"{name} {cql_type}" for name, cql_type in COLUMNS)
    execute(
        f"CREATE TABLE IF NOT EXISTS {KEYSPACE}.{TABLE} "
        f"({columns}, PRIMARY KEY (account_id, customer_id))"
    )


def customers(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Give `count` customers, account by account; one seed gives the same customers.

    A column that a row does not name is null.
    """
    made = account = 0
    while made < count:
        rng = random.Random(f"{seed}/customers/{account}")  # noqa: S311, sample data
        country = rng.choices(tuple(_PEOPLE), _SHARES)[0]
        shared = {
            "account_id": UUID(int=rng.getrandbits(128), version=4),
            "account_name": f"{rng.choice(_PEOPLE[country][3])} & Co. № {account}",
            "account_plan": rng.choice(("free", "plus", "business")),
            "country": country,
        }
        for _ in range(min(rng.randint(1, MOST_PEOPLE), count - made)):
            yield shared | _person(rng, country, made)
            made += 1
        account += 1


def _person(rng: random.Random, country: str, number: int) -> dict[str, Any]:
    from cassandra.util import Duration, uuid_from_time

    _, _, dialled, names = _PEOPLE[country]
    registered = _FIRST_DAY + timedelta(minutes=number, milliseconds=rng.randrange(60_000))
    orders = rng.randrange(40)
    billing = _address(rng, country)
    person: dict[str, Any] = {
        "customer_id": uuid_from_time(registered, node=1, clock_seq=number % 16_384),
        "name": rng.choice(names),
        "email": f"customer{number}@example.com",
        "active": rng.random() < 0.9,
        "born": date(1940, 1, 1) + timedelta(days=rng.randrange(24_000)),
        "registered": registered,
        "call_after": rng.randrange(86_400) * 1_000_000_000,
        "membership": Duration(12 * rng.randrange(5), rng.randrange(31), 0),
        "points": rng.randrange(-(2**33), 2**40),
        "orders": orders,
        "discount_percent": rng.choice((0, 5, 10, 25)),
        "priority": rng.randrange(-2, 3),
        "rating": rng.choice((1.5, 3.0, 4.5, 5.0)),
        "churn_risk": round(rng.random(), 6),
        "credit": Decimal(rng.randrange(-100_000, 1_000_000)).scaleb(-2),
        "spent_cents": 10 ** rng.randrange(3, 25) + orders,
        "last_ip": f"192.0.2.{rng.randrange(256)}" if number % 3 else f"2001:db8::{number:x}",
        "avatar": rng.randbytes(rng.randrange(8, 24)),
        "tags": set(rng.sample(_TAGS, rng.randrange(1, 4))),
        "phones": [f"{dialled} {rng.randrange(10**9):09d}" for _ in range(rng.randrange(1, 3))],
        "recent_orders": [rng.getrandbits(40) for _ in range(min(orders, 5))] or None,
        "preferences": {
            "language": country.lower(),
            "newsletter": rng.choice(("daily", "weekly", "never")),
            "theme": rng.choice(("dark 🌙", "light")),
        },
        "place": (round(rng.uniform(-60, 70), 5), round(rng.uniform(-180, 180), 5)),
        "billing": billing,
        "addresses": {"home": billing, "parcels 📦": _address(rng, country)},
        "taste": [round(rng.uniform(-1, 1), 3) for _ in range(4)],
    }
    return {
        name: value
        for name, value in person.items()
        if name in ALWAYS_KNOWN or (value is not None and rng.random() >= _NULL_SHARE)
    }


def _address(rng: random.Random, country: str) -> tuple[str, str, str | None, set[int] | None]:
    """Give street, city, postcode and floors."""
    city, postcode, _, _ = _PEOPLE[country]
    floors = {rng.randrange(9), rng.randrange(9)} if rng.random() < 0.3 else None
    return (
        f"{rng.choice(('Main', 'Old', 'Temple'))} Street {rng.randrange(1, 200)}",
        city,
        postcode if rng.random() < 0.9 else None,
        floors,
    )


def fill_customers(
    connection: Connection,
    count: int,
    *,
    seed: int = 1,
    on_progress: Callable[[int], object] = lambda rows: None,
) -> float:
    """Write the customers into their table; gives the seconds that it took."""
    from cassandra.query import UNSET_VALUE

    names = [name for name, _ in COLUMNS]
    rows = ([row.get(name, UNSET_VALUE) for name in names] for row in customers(count, seed))
    return fill_table(connection, f"{KEYSPACE}.{TABLE}", names, rows, on_progress)
