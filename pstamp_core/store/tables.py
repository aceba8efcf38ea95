"""The tables of the server.

Names, columns and meanings are IPP's (`pxadmin_create_tables.sql`, `dbconfig/pstamp.md`); what we add stands at the end
of each table, under "ours". Integers that IPP leaves NULL default to 0 here. The clock is UTC everywhere; our own
times are microseconds since 1970, so that both engines compare them alike. A change of a table needs a step in
`migrations`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from peewee import (
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CompositeKey,
    DoubleField,
    ForeignKeyField,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
)

from pstamp_core.database import NameField, Table, UtcDateTimeField
from pstamp_core.machines import DependentState, JobState, RequestState
from pstamp_core.machines.dependent import SHARED


class StateField(NameField):
    """A column that holds the word of a state, and gives the member of its enum."""

    def __init__(self, states: type[Enum], **kwargs: Any) -> None:
        self.states = states
        super().__init__(**kwargs)

    def db_value(self, value: Any) -> Any:
        """Store the word."""
        return value.value if isinstance(value, Enum) else value

    def python_value(self, value: Any) -> Any:
        """Return the member."""
        return self.states(value) if value is not None else None


class Worked(Table):
    """What every row under a machine has: fault, attempts and lease."""

    state: Any
    changed_at: Any
    fault = SmallIntegerField(default=0)
    fault_count = IntegerField(default=0)
    # ours
    cause = SmallIntegerField(default=0)
    attempt = IntegerField(default=0)
    lease_owner = NameField(default="")
    lease_until = BigIntegerField(default=0)
    retry_at = BigIntegerField(default=0)

    @property
    def id_(self) -> int:
        """The row's number."""
        return int(getattr(self, self.key().name))

    @classmethod
    def key(cls) -> Any:
        """Return the column of the row's number."""
        return cls._meta.primary_key

    @classmethod
    def closing_values(cls, dest: Any) -> dict[str, Any]:  # noqa: ARG003
        """Return columns that follow from reaching state `dest`."""
        return {}


class pstampDataStore(Table):
    """A remote data store that is polled for request files."""

    ds_id = BigAutoField()
    state = NameField(default="enabled")
    lastFileset = NameField(null=True)
    timestamp = UtcDateTimeField(null=True)
    label = NameField(null=True)
    outProduct = NameField(null=True, unique=True)
    uri = NameField(255, null=True)
    pollInterval = IntegerField(default=60)
    need_magic = SmallIntegerField(default=0)


class pstampProject(Table):
    """A survey that stamps can be cut from."""

    proj_id = BigAutoField()
    name = NameField(unique=True)
    state = NameField(default="enabled")
    dbname = NameField(255)
    dvodb = NameField(null=True)
    camera = NameField(null=True)
    telescope = NameField(null=True)
    need_magic = BooleanField(default=False)
    # ours: where the images are, and the first runs that can be made again or whose unconvolved files are kept
    imageroot = NameField(255, default="")
    oldest_diff = BigIntegerField(default=0)
    oldest_unconv = BigIntegerField(default=0)


class pstampRequest(Worked):
    """One submitted request file."""

    req_id = BigAutoField()
    ds_id = BigIntegerField(default=0)
    state = StateField(RequestState, default=RequestState.NEW)
    name = NameField(null=True, unique=True)
    reqType = NameField(16, null=True)
    label = NameField(null=True, index=True)
    outProduct = NameField(null=True)
    uri = NameField(255)
    outdir = NameField(255, null=True)
    username = NameField(255, null=True, index=True)
    proj_id = BigIntegerField(default=0)
    registered = UtcDateTimeField()
    timestamp = UtcDateTimeField()
    # ours
    changed_at = BigIntegerField(default=0)

    class Meta:
        indexes = ((("state", "fault", "lease_owner"), False),)


class pstampDependent(Worked):
    """One cleaned component that must be made again; shared by all jobs that need it."""

    dep_id = BigAutoField()
    state = StateField(DependentState, default=DependentState.NEW)
    stage = NameField()
    stage_id = BigIntegerField()
    component = NameField()
    imagedb = NameField(255)
    outdir = NameField(255, null=True)
    rlabel = NameField(null=True)
    need_magic = BooleanField(default=False)
    # ours: `open_key` holds the component while the row is open, and is NULL after, so that the key is unique
    open_key = NameField(400, null=True, unique=True)
    reason = TextField(default="")
    changed_at = BigIntegerField(default=0)

    @classmethod
    def closing_values(cls, dest: DependentState) -> dict[str, Any]:
        """Free the key of a closed dependent, so that a later need can make a new one."""
        return {} if dest in SHARED else {"open_key": None}

    class Meta:
        indexes = ((("state", "fault", "lease_owner"), False),)


class pstampJob(Worked):
    """One input image for one row of a request."""

    request_id: int
    job_id = BigAutoField()
    req_id = ForeignKeyField(
        pstampRequest, column_name="req_id", object_id_name="request_id", on_delete="CASCADE", index=False
    )
    rownum = NameField(default="0")
    state = StateField(JobState, default=JobState.RUN)
    jobType = NameField(16, default="none")
    exp_id = BigIntegerField(default=0)
    outputBase = NameField(255, null=True)
    options = BigIntegerField(default=0)
    dep_id = BigIntegerField(default=0)
    parent_id = BigIntegerField(default=0)
    is_parent = BooleanField(default=False)
    # ours
    image = NameField(512, default="")
    params = TextField(default="")
    result = TextField(default="")
    sentence = TextField(default="")
    changed_at = BigIntegerField(default=0)

    class Meta:
        indexes = (
            (("state", "fault", "lease_owner"), False),
            # A claim finds the first job of a request, and the jobs of an image, without a look at any other.
            (("fault", "req_id", "state", "lease_owner", "job_id", "dep_id", "retry_at", "is_parent"), False),
            (("image", "state", "fault", "lease_owner", "req_id", "job_id"), False),
            # What waits: the dependents of a request, the jobs of a dependent, the children of a job.
            (("req_id", "state", "dep_id"), False),
            (("dep_id", "state", "req_id"), False),
            (("parent_id", "state", "req_id"), False),
        )


class pstampHistory(Table):
    """Ours: every change of state, fault or lease of a request, job or dependent, in order. Never changed."""

    hist_id = BigAutoField()
    machine = NameField(16)
    row_id = BigIntegerField()
    event = NameField(16)
    source = NameField(16)
    dest = NameField(16)
    fault = SmallIntegerField(default=0)
    cause = SmallIntegerField(default=0)
    attempt = IntegerField(default=0)
    who = NameField(255)
    at = BigIntegerField()
    note = TextField(default="")

    class Meta:
        indexes = ((("machine", "row_id", "hist_id"), False),)


class pstampWebRequest(Table):
    """A counter and nothing else: it names uploaded files."""

    num = BigAutoField()


class pstampFile(Table):
    """A file outside the work directory that clean-up must delete."""

    file_id = BigAutoField()
    job_id = BigIntegerField(index=True)
    path = NameField(255)


class pstampUserDomain(Table):
    """What every user of an e-mail domain may do."""

    domainName = NameField(primary_key=True)
    accessLevel = IntegerField(default=0)
    defaultProduct = NameField(255, null=True)
    defaultLabel = NameField(null=True)


class pstampUser(Table):
    """What one user may do; goes before the domain."""

    userName = NameField()
    domainName = NameField()
    accessLevel = IntegerField(default=0)
    defaultProduct = NameField(255, null=True)
    defaultLabel = NameField(null=True)

    class Meta:
        primary_key = CompositeKey("userName", "domainName")


class pstampAccessLevel(Table):
    """The last date (MJD, d) of a project that an access level may see; 0 is no limit, a negative one no access.

    As in `pstampparse.pl`, nothing looks at `mjd_min`.
    """

    proj_id = ForeignKeyField(pstampProject, column_name="proj_id", object_id_name="project_id", on_delete="CASCADE")
    accessLevel = IntegerField()
    mjd_min = DoubleField(default=0.0)
    mjd_max = DoubleField(default=0.0)

    class Meta:
        primary_key = CompositeKey("proj_id", "accessLevel")


class Label(Table):
    """A processing queue: larger priorities first; an inactive label hands out no work."""

    label = NameField(primary_key=True)
    priority = IntegerField(default=0)
    active = BooleanField(default=True)
    comment = NameField(80, null=True)


class pstampAccount(Table):
    """Ours: a person who may log in. What they may see of a project is said by `pstampUser`, as for all others."""

    account_id = BigAutoField()
    email = NameField(255, unique=True)
    password = NameField(255)
    active = BooleanField(default=True)


class pstampGroup(Table):
    """Ours: an account is in a group."""

    account: int
    account_id = ForeignKeyField(
        pstampAccount, column_name="account_id", object_id_name="account", on_delete="CASCADE", index=False
    )
    name = NameField(index=True)

    class Meta:
        primary_key = CompositeKey("account_id", "name")


class pstampKey(Table):
    """Ours: a secret that stands for an account: a login, or a token if it has a name. Only its SHA-256 is kept."""

    account: int
    key_id = BigAutoField()
    account_id = ForeignKeyField(pstampAccount, column_name="account_id", object_id_name="account", on_delete="CASCADE")
    name = NameField(null=True)
    digest = NameField(unique=True)
    made_at = BigIntegerField()
    expires_at = BigIntegerField(index=True)


class pstampGuess(Table):
    """Ours: how many wrong passwords there were, for an e-mail address or from an internet address, and until when."""

    who = NameField(255, primary_key=True)
    wrong = IntegerField(default=0)
    until = BigIntegerField(index=True)


class pstampSender(Table):
    """Ours: the account that sent a request, and how many rows the request has."""

    account: int
    req_id = BigIntegerField(primary_key=True)
    account_id = ForeignKeyField(pstampAccount, column_name="account_id", object_id_name="account", on_delete="CASCADE")
    num_rows = IntegerField()


TABLES: tuple[type[Model], ...] = (
    pstampDataStore, pstampProject, pstampRequest, pstampDependent, pstampJob, pstampHistory, pstampWebRequest,
    pstampFile, pstampUserDomain, pstampUser, pstampAccessLevel, Label, pstampAccount, pstampGroup, pstampKey,
    pstampGuess, pstampSender,
)  # fmt: skip
