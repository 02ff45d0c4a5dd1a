"""Sample data of a tenant's move: Sunbird's four tables, two tenants among others, hard cases too.

The tables are those of Sunbird's keyspace at the time of the move of the tenant "ETB Pilot
Rajasthan"; course batches also come in the later shape, keyed by course and batch.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

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
    **dict.fromkeys(
        "id avatar channel countrycode createdby createddate currentlogintime dob email firstname "
        "gender lastlogintime lastname location loginid password phone profilesummary registryid "
        "rootorgid temppassword thumbnail tncacceptedversion updatedby updateddate userid "
        "username".split(),
        "text",
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
    **dict.fromkeys(
        "id addedby addedbyname approvaldate approvedby hashtagid organisationid orgjoindate "
        "orgleftdate position updatedby updateddate userid".split(),
        "text",
    ),
    **dict.fromkeys(("isapproved", "isdeleted", "isrejected"), "boolean"),
    "roles": "list<text>",
}
ORGANISATION = {
    **dict.fromkeys(
        "id addressid approvedby approveddate channel communityid contactdetail createdby "
        "createddate description email externalid hashtagid homeurl imgurl locationid orgcode "
        "orgname orgtype orgtypeid parentorgid preferredlanguage provider rootorgid slug theme "
        "thumbnail updatedby updateddate".split(),
        "text",
    ),
    "datetime": "timestamp",
    **dict.fromkeys(("isapproved", "isdefault", "isrootorg"), "boolean"),
    **dict.fromkeys(("noofmembers", "status"), "int"),
    "locationids": "list<text>",
}
COURSE_BATCH = {
    **dict.fromkeys(
        "id courseid coursecreator createdby createddate description enddate enrollmenttype "
        "hashtagid name startdate updateddate countincrementdate countdecrementdate".split(),
        "text",
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
