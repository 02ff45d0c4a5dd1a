"""Sample data of a tenant's move: Sunbird's four tables, two tenants among others, hard cases too.

The tables are those of Sunbird's keyspace at the time of the move of the tenant "ETB Pilot
Rajasthan"; course batches also come in the later shape, keyed by course and batch.
"""

import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from migration_platform.demo.sample import fill_table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.neo4j import Graph, trusted


def _words(text: str) -> list[str]:
    return text.split()


def _texts(names: str) -> dict[str, str]:
    """Give columns of texts."""
    return dict.fromkeys(names.split(), "text")


KEYSPACE = "sunbird"
ORIGIN_TENANT = "01241408242723225614"
TARGET_TENANT = "01246375399411712074"
OTHER_TENANTS = ("0123653943740170242", "0124784842112040965", "0126796199493140480")
CHANNELS = {
    ORIGIN_TENANT: "etbpilotrajasthan",
    TARGET_TENANT: "rj",
    OTHER_TENANTS[0]: "ap",
    OTHER_TENANTS[1]: "tn",
    OTHER_TENANTS[2]: "mh",
}
USER = {
    **_texts(
        "id avatar channel countrycode createdby createddate currentlogintime dob email firstname "
        "gender lastlogintime lastname location loginid password phone profilesummary registryid "
        "rootorgid temppassword thumbnail tncacceptedversion updatedby updateddate userid "
        "username"
    ),
    **dict.fromkeys(("emailverified", "isdeleted", "phoneverified"), "boolean"),
    "status": "int",
    "tncacceptedon": "timestamp",
    "framework": "map<text, frozen<list<text>>>",
    "profilevisibility": "map<text, text>",
    **dict.fromkeys(("grade", "language", "locationids", "roles", "subject"), "list<text>"),
    "webpages": "list<frozen<map<text, text>>>",
}
USER_ORG = {
    **_texts(
        "id addedby addedbyname approvaldate approvedby hashtagid organisationid orgjoindate "
        "orgleftdate position updatedby updateddate userid"
    ),
    **dict.fromkeys(("isapproved", "isdeleted", "isrejected"), "boolean"),
    "roles": "list<text>",
}
ORGANISATION = {
    **_texts(
        "id addressid approvedby approveddate channel communityid contactdetail createdby "
        "createddate description email externalid hashtagid homeurl imgurl locationid orgcode "
        "orgname orgtype orgtypeid parentorgid preferredlanguage provider rootorgid slug theme "
        "thumbnail updatedby updateddate"
    ),
    "datetime": "timestamp",
    **dict.fromkeys(("isapproved", "isdefault", "isrootorg"), "boolean"),
    **dict.fromkeys(("noofmembers", "status"), "int"),
    "locationids": "list<text>",
}
COURSE_BATCH = {
    **_texts(
        "id courseid coursecreator createdby createddate description enddate enrollmenttype "
        "hashtagid name startdate updateddate countincrementdate countdecrementdate"
    ),
    **dict.fromkeys(("countincrementstatus", "countdecrementstatus"), "boolean"),
    "status": "int",
    **dict.fromkeys(("createdfor", "mentors"), "list<text>"),
    "courseadditionalinfo": "map<text, text>",
    "participant": "map<text, boolean>",
}
TABLES = {
    "user": (USER, "id"),
    "user_org": (USER_ORG, "id"),
    "organisation": (ORGANISATION, "id"),
    "course_batch": (COURSE_BATCH, "id"),
}
INDEXES = {
    "user": ("email", "phone", "status", "userid", "username", "loginid"),
    "user_org": ("userid", "organisationid"),
}
KEYED_BATCHES = "keyed_course_batch"
"""Course batches in the later shape; the name is this module's own."""
KEYED_COURSE_BATCH = {
    **_texts(
        "courseid batchid createdby createddate description enddate enrollmentenddate "
        "enrollmenttype name startdate updateddate"
    ),
    "status": "int",
    **dict.fromkeys(("createdfor", "mentors"), "list<text>"),
    "cert_templates": "map<text, frozen<map<text, text>>>",
}
CONTENT_ORIGIN = "0126741568685424647"
CONTENT_TARGET = "0126741573767413761"
"""The content service knows the two tenants by ids of its own."""
CONTENT_LABEL = "domain"
SCHOOLS = 20
"""Organisations below each tenant."""
USERS_A_BATCH = 25
_FIRST_DAY = datetime(2018, 6, 1, tzinfo=UTC)
_FIRST_NAMES = _words(
    "Aarav Aditi Anil Asha Bhavna Deepak Divya Geeta Harish Kavita Lokesh Manju Meena Mohan Neha "
    "Pooja Prakash Rajesh Rekha Sanjay Sunita Suresh Vikram कविता राजेश सुनीता"
)
_LAST_NAMES = _words(
    "Bhati Chauhan Choudhary Gehlot Gupta Jain Joshi Kumari Meena Pareek Purohit Rathore Saini "
    "Sharma Shekhawat Singh Solanki Verma"
)
_SUBJECTS = ("English", "Hindi", "Mathematics", "Sanskrit", "Science", "Social Science")
_CONTENTS = ("Resource", "Collection", "TextBook", "LessonPlan", "Course")

Row = Mapping[str, Any]
Progress = Callable[[int], object]


def create_tables(connection: Connection, keyspace: str = KEYSPACE) -> None:
    """Make the keyspace, the four tables and their indexes where they are missing."""
    execute = connection.session.execute
    execute(
        f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    for table, (columns, key) in TABLES.items():
        listed = ", ".join(f"{name} {cql_type}" for name, cql_type in columns.items())
        execute(f"CREATE TABLE IF NOT EXISTS {keyspace}.{table} ({listed}, PRIMARY KEY ({key}))")
        for column in INDEXES.get(table, ()):
            execute(f"CREATE INDEX IF NOT EXISTS ON {keyspace}.{table} ({column})")


def drop_tables(connection: Connection, keyspace: str = KEYSPACE) -> None:
    """Drop the four tables where they are."""
    for table in TABLES:
        connection.session.execute(f"DROP TABLE IF EXISTS {keyspace}.{table}", timeout=60)


def fill_tenants(
    connection: Connection,
    *,
    users: int,
    seed: int = 1,
    keyspace: str = KEYSPACE,
    on_progress: Progress = lambda rows: None,
) -> dict[str, int]:
    """Write the rows of all tenants into the four tables; gives how many, as `count_rows` does.

    Three of five users are the origin tenant's, one of four the target tenant's. From 200 users on
    every hard case is there, from a list that names the tenant twice to a user in both.
    """
    tables: Mapping[str, Iterator[Row]] = {
        "organisation": organisations(seed),
        "user": tenant_users(users, seed),
        "user_org": associations(users, seed),
        "course_batch": course_batches(count_rows(users)["course_batch"], seed),
    }
    counts = {}
    for table, rows in tables.items():
        columns, _ = TABLES[table]
        counts[table] = _write(connection, f"{keyspace}.{table}", columns, rows, on_progress)
    return counts


def count_rows(users: int) -> dict[str, int]:
    """Say how many rows each table has for so many users."""
    return {
        "organisation": len(CHANNELS) * (1 + SCHOOLS),
        "user": users,
        "user_org": sum(len(_joined(number)) for number in range(users)),
        "course_batch": max(20, users // USERS_A_BATCH),
    }


def fill_keyed_batches(
    connection: Connection,
    *,
    batches: int,
    seed: int = 1,
    keyspace: str = KEYSPACE,
    table: str = KEYED_BATCHES,
    on_progress: Progress = lambda rows: None,
) -> int:
    """Make a table of course batches keyed by course and batch, and fill it; gives its rows."""
    listed = ", ".join(f"{name} {cql_type}" for name, cql_type in KEYED_COURSE_BATCH.items())
    connection.session.execute(
        f"CREATE TABLE IF NOT EXISTS {keyspace}.{table} ({listed}, PRIMARY KEY (courseid, batchid))"
    )
    rows = (
        {"batchid": row["id"], **{name: row[name] for name in KEYED_COURSE_BATCH if name in row}}
        for row in course_batches(batches, seed)
    )
    return _write(connection, f"{keyspace}.{table}", KEYED_COURSE_BATCH, rows, on_progress)


def _write(
    connection: Connection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterator[Row],
    on_progress: Progress,
) -> int:
    from cassandra.query import UNSET_VALUE

    count = 0

    def values() -> Iterator[list[Any]]:
        nonlocal count
        for row in rows:
            count += 1
            yield [row.get(name, UNSET_VALUE) for name in columns]

    fill_table(connection, table, list(columns), values(), on_progress)
    return count


# -- rows ----------------------------------------------------------------------------------------


def tenant_of(number: int) -> str:
    """Give the tenant of a user or batch: of twenty twelve are the origin's, five the target's."""
    place = number % 20
    if place < 12:
        return ORIGIN_TENANT
    return TARGET_TENANT if place < 17 else OTHER_TENANTS[place - 17]


def organisations(seed: int = 1) -> Iterator[Row]:
    """Give the tenants' root organisations and the schools below them."""
    rng = random.Random(f"{seed}/organisations")  # noqa: S311, sample data
    names = ("ETB Pilot Rajasthan", "Rajasthan", "Andhra Pradesh", "Tamil Nadu", "Maharashtra")
    for name, (tenant, channel) in zip(names, CHANNELS.items(), strict=True):
        common = {
            "channel": channel,
            "rootorgid": tenant,
            "status": 1,
            "isapproved": True,
            "createdby": "system",
            "createddate": _text_of(_moment(rng)),
            "preferredlanguage": "English",
        }
        yield {
            **common,
            "id": tenant,
            "orgname": name,
            "description": f"{name}, state tenant",
            "hashtagid": hashtag_of(tenant),
            "isrootorg": True,
            "isdefault": tenant == TARGET_TENANT,
            "slug": channel,
            "provider": channel,
            "externalid": f"{channel}-root",
            "email": f"nodal.officer@{channel}.example.com",
            "noofmembers": rng.randrange(1_000, 50_000),
            "datetime": _moment(rng),
        }
        for school in range(SCHOOLS):
            school_id = _school(tenant, school)
            yield {
                **common,
                "id": school_id,
                "orgname": f"Government Senior Secondary School {school + 1}",
                "hashtagid": school_id,
                "isrootorg": False,
                "externalid": f"{channel}-{school:04d}",
                "orgcode": f"08{rng.randrange(10**9):09d}",
                "noofmembers": rng.randrange(20, 90),
                "locationids": [str(uuid.UUID(int=rng.getrandbits(128), version=4))],
            }


def tenant_users(count: int, seed: int = 1) -> Iterator[Row]:
    """Give users of all tenants; some are deleted."""
    for number in range(count):
        rng = random.Random(f"{seed}/user/{number}")  # noqa: S311, sample data
        tenant, user_id = tenant_of(number), user_id_of(number, seed)
        first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
        made = _moment(rng)
        name = f"user{number}@{CHANNELS[tenant]}"
        row: dict[str, Any] = {
            "id": user_id,
            "userid": user_id,
            "username": name,
            "loginid": name,
            "firstname": first,
            "lastname": last,
            "channel": CHANNELS[tenant],
            "rootorgid": tenant,
            "countrycode": "+91",
            "createdby": "self" if rng.random() < 0.7 else user_id_of(0, seed),
            "createddate": _text_of(made),
            "updateddate": _text_of(made + timedelta(days=rng.randrange(90))),
            # Encrypted in Sunbird, too: nobody's real address.
            "email": f"{rng.getrandbits(192):048x}",
            "emailverified": rng.random() < 0.8,
            "phone": f"{rng.getrandbits(128):032x}",
            "phoneverified": rng.random() < 0.5,
            "isdeleted": number % 23 == 3,
            "status": 0 if number % 23 == 3 else 1,
            "roles": ["PUBLIC", "CONTENT_CREATOR"] if number % 9 == 0 else ["PUBLIC"],
            "language": ["English", "Hindi"],
            "subject": sorted(rng.sample(_SUBJECTS, 2)),
            "grade": [f"Class {rng.randrange(1, 13)}"],
            "framework": {"board": ["State (Rajasthan)"], "medium": ["Hindi"]},
            "profilevisibility": {"email": "private", "phone": "private"},
        }
        if number % 4:
            row["tncacceptedversion"], row["tncacceptedon"] = "v1", made + timedelta(hours=1)
        yield row


def associations(users: int, seed: int = 1) -> Iterator[Row]:
    """Give the rows that say which user belongs to which organisation; some users have none.

    Some of the origin's users are in the target already, some users of other tenants in the
    origin, every third has a school, and some associations are deleted.
    """
    for number in range(users):
        rng = random.Random(f"{seed}/user_org/{number}")  # noqa: S311, sample data
        for place, organisation in enumerate(_joined(number)):
            moment = _moment(rng)
            left = number % 29 == 2 and place == 0
            row: dict[str, Any] = {
                "id": f"0125{number:010d}{place:05d}",
                "userid": user_id_of(number, seed),
                "organisationid": organisation,
                "hashtagid": hashtag_of(organisation),
                "addedby": user_id_of(0, seed),
                "isapproved": True,
                "isdeleted": left,
                "isrejected": False,
                "orgjoindate": _text_of(moment),
                "position": rng.choice(("Teacher", "Head Teacher", "Mentor")),
                "roles": ["PUBLIC"],
                "updateddate": _text_of(moment),
            }
            if left:
                row["orgleftdate"] = _text_of(moment + timedelta(days=40))
            yield row


def _joined(number: int) -> list[str]:
    """Give the organisations of a user."""
    if number % 37 == 5:
        return []
    tenant = tenant_of(number)
    joined = [tenant]
    if tenant == ORIGIN_TENANT and number % 31 == 1:
        joined.append(TARGET_TENANT)
    if tenant in OTHER_TENANTS and number % 41 == 17:
        joined.append(ORIGIN_TENANT)
    if number % 3 == 0:
        joined.append(_school(tenant, number % SCHOOLS))
    return joined


def course_batches(count: int, seed: int = 1) -> Iterator[Row]:
    """Give course batches; `createdfor` has the tenants in every way that there is."""
    school = _school(ORIGIN_TENANT, 0)
    rare = {
        7: [ORIGIN_TENANT, school],
        8: [OTHER_TENANTS[0], ORIGIN_TENANT, school],
        9: [ORIGIN_TENANT, TARGET_TENANT],
        10: [ORIGIN_TENANT, OTHER_TENANTS[1], ORIGIN_TENANT],
        11: None,
    }
    for number in range(count):
        rng = random.Random(f"{seed}/batch/{number}")  # noqa: S311, sample data
        made = _moment(rng)
        creator = user_id_of(rng.randrange(USERS_A_BATCH), seed)
        batch_id = f"0126{number:015d}"
        row: dict[str, Any] = {
            "id": batch_id,
            "courseid": f"do_2126{rng.getrandbits(40):013d}",
            "name": f"Batch {number + 1}",
            "description": rng.choice(("", "Energized textbooks, phase 1", "शिक्षक प्रशिक्षण")),
            "coursecreator": creator,
            "createdby": creator,
            "createddate": _text_of(made),
            "updateddate": _text_of(made + timedelta(days=2)),
            "startdate": f"{made + timedelta(days=7):%Y-%m-%d}",
            "enddate": f"{made + timedelta(days=rng.randrange(30, 90)):%Y-%m-%d}",
            "enrollmenttype": "open" if rng.random() < 0.8 else "invite-only",
            "hashtagid": batch_id,
            "status": rng.randrange(3),
            "createdfor": rare.get(number % 20, [tenant_of(number)]),
            "mentors": [user_id_of(rng.randrange(USERS_A_BATCH), seed)],
            "courseadditionalinfo": {"courseName": f"Course {number % 40}", "leafNodesCount": "12"},
            "participant": {
                user_id_of(rng.randrange(USERS_A_BATCH), seed): rng.random() < 0.5 for _ in range(3)
            },
            "countincrementstatus": False,
            "countdecrementstatus": False,
        }
        yield {name: value for name, value in row.items() if value is not None}


def user_id_of(number: int, seed: int = 1) -> str:
    """Give the id of a user."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}/user/{number}"))


def hashtag_of(organisation: str) -> str:
    """Give the hashtag id of an organisation: a tenant's is not its id, a school's is."""
    if organisation in CHANNELS:
        return uuid.uuid5(uuid.NAMESPACE_OID, organisation).hex
    return organisation


def _school(tenant: str, number: int) -> str:
    return f"{tenant[:12]}{number:05d}99"


def _moment(rng: random.Random) -> datetime:
    return _FIRST_DAY + timedelta(milliseconds=rng.randrange(200 * 86_400_000))


def _text_of(moment: datetime) -> str:
    """Give a moment as Sunbird writes it."""
    return f"{moment:%Y-%m-%d %H:%M:%S}:{moment.microsecond // 1000:03d}+0000"


# -- content -------------------------------------------------------------------------------------


def content_nodes(count: int, seed: int = 1) -> Iterator[Row]:
    """Give content of all tenants; some match one of the two statements, some a longer list."""
    other = OTHER_TENANTS[0]
    origin, target = CONTENT_ORIGIN, CONTENT_TARGET
    rare: Mapping[int, tuple[str, list[str] | None]] = {
        8: (origin, [target]),
        9: (other, [origin]),
        10: (origin, [origin, other]),
        11: (origin, None),
        12: (other, [origin, target]),
    }
    for number in range(count):
        rng = random.Random(f"{seed}/content/{number}")  # noqa: S311, sample data
        place = number % 20
        owner = origin if place < 8 else target if place < 17 else OTHER_TENANTS[place - 17]
        channel, created_for = rare.get(place, (owner, [owner]))
        kind = rng.choice(_CONTENTS)
        moment = f"{_moment(rng):%Y-%m-%dT%H:%M:%S.000+0000}"
        node: dict[str, Any] = {
            "IL_UNIQUE_ID": f"do_2125{seed % 1000:03d}{number:012d}",
            "IL_FUNC_OBJECT_TYPE": "Content",
            "IL_SYS_NODE_TYPE": "DATA_NODE",
            "graph_id": CONTENT_LABEL,
            "name": f"{rng.choice(_SUBJECTS)} {kind} {number}",
            "contentType": kind,
            "mimeType": "application/vnd.ekstep.ecml-archive",
            "status": rng.choice(("Live", "Draft", "Review")),
            "createdBy": user_id_of(rng.randrange(USERS_A_BATCH), seed),
            "createdOn": moment,
            "lastUpdatedOn": moment,
            "pkgVersion": float(rng.randrange(1, 6)),
            "channel": channel,
        }
        if created_for is not None:
            node["createdFor"] = created_for
        yield node


def fill_content(
    graph: Graph,
    *,
    nodes: int,
    seed: int = 1,
    label: str = CONTENT_LABEL,
    on_progress: Progress = lambda nodes: None,
) -> int:
    """Make nodes of content; gives how many."""
    made = content_nodes(nodes, seed)
    query = f"UNWIND $nodes AS node CREATE (n:`{label}`) SET n = node"
    while some := list(islice(made, 1_000)):
        graph.write(lambda work, some=some: work.run(trusted(query), nodes=some).consume())
        on_progress(len(some))
    return nodes


def drop_content(graph: Graph, label: str = CONTENT_LABEL) -> None:
    """Delete all nodes of a label, ten thousand in a transaction."""
    query = f"MATCH (n:`{label}`) WITH n LIMIT 10000 DETACH DELETE n RETURN count(n) AS gone"
    while graph.write(lambda work: [row["gone"] for row in work.run(trusted(query))] != [0]):
        pass
