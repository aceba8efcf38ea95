"""The modes of `pstamptool` that change tables without states: data stores, projects, files, users, access levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peewee import Model

from pstamp_core.faults import PstampError
from pstamp_core.store import (
    moment,
    pstampAccessLevel,
    pstampJob,
    pstampProject,
    pstampUser,
    pstampUserDomain,
    pstampWebRequest,
)
from pstamp_core.store.tables import pstampDataStore, pstampFile
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.tool.filters import Filter, conditions, values_of
from pstamp_core.tasks.tool.steps import numbered, selected

_STORE = {
    "set_uri": pstampDataStore.uri,
    "set_out_product": pstampDataStore.outProduct,
    "set_last_fileset": pstampDataStore.lastFileset,
    "set_state": pstampDataStore.state,
    "set_label": pstampDataStore.label,
    "set_poll_interval": pstampDataStore.pollInterval,
}
_PROJECT = {
    "state": pstampProject.state,
    "imagedb": pstampProject.dbname,
    "dvodb": pstampProject.dvodb,
    "telescope": pstampProject.telescope,
    "need_magic": pstampProject.need_magic,
}
_LEVEL = {"set_mjd_min": pstampAccessLevel.mjd_min, "set_mjd_max": pstampAccessLevel.mjd_max}


def _of_people(table: type[Model]) -> dict[str, Any]:
    """Return the columns of users and domains that options set."""
    return {f"set_{name}": table._meta.fields[name] for name in ("accessLevel", "defaultProduct", "defaultLabel")}


# -- data stores and projects


def adddatastore(server: Server, **options: Any) -> None:
    """Add a data store that is polled for requests, at once.

    Options: set_uri, set_out_product, set_last_fileset, set_state, set_label, set_poll_interval (s).

    Raises
    ------
    PstampError
        Fault 1: a data store has this product already. Fault 3: a text is too long or empty.
    """
    values = values_of(options, _STORE)
    _add(server, pstampDataStore, values, {"set_out_product": pstampDataStore.outProduct}, options)


def moddatastore(server: Server, *, ds_id: int, **options: Any) -> None:
    """Change one data store; the time of its last poll becomes now.

    Options: those of `adddatastore` without the product, update_timestamp (nothing else need change), and state, which
    the data store must have.

    Raises
    ------
    PstampError
        Fault 1: nothing is to change, or there is no such data store. Fault 3: as in `adddatastore`.
    """
    values = values_of(options, _STORE)
    if not values and not options.get("update_timestamp"):
        raise PstampError("-moddatastore: nothing to change; at least one of -set_..., -update_timestamp is required")
    where = [pstampDataStore.ds_id == ds_id, *conditions(options, [Filter("state", pstampDataStore.state)])]

    def work() -> None:
        now = moment(server.store.now())
        if not pstampDataStore.update({**values, "timestamp": now}).where(*where).execute():
            raise PstampError(f"there is no data store {ds_id}{' in this state' if 'state' in options else ''}")

    server.store.work(work)


def addproject(server: Server, **options: Any) -> None:
    """Add a project; who may use it is for `addaccesslevel` to say.

    Options: name, imagedb (the address of its image database), inst (the camera), telescope, state, dvodb, need_magic.

    Raises
    ------
    PstampError
        Fault 1: there is a project of this name. Fault 3: a text is too long or empty.
    """
    columns = {**_PROJECT, "name": pstampProject.name, "inst": pstampProject.camera}
    _add(server, pstampProject, values_of(options, columns), {"name": pstampProject.name}, options)


def modproject(server: Server, *, proj_id: int, **options: Any) -> None:
    """Change one project.

    Options: state, imagedb, dvodb, camera, telescope, need_magic.

    Raises
    ------
    PstampError
        Fault 1: nothing is to change, or there is no such project. Fault 3: as in `addproject`.
    """
    values = values_of(options, {**_PROJECT, "camera": pstampProject.camera})
    if not values:
        raise PstampError("-modproject: nothing to change; give -state, or another column")

    def work() -> None:
        if not pstampProject.update(values).where(pstampProject.proj_id == proj_id).execute():
            raise PstampError(f"there is no project {proj_id}")

    server.store.work(work)


# -- numbers and files


def getwebrequestnum(server: Server) -> int:
    """Return a number that nobody else gets; it names an upload."""
    return server.store.work(lambda: int(pstampWebRequest.create().num))


def addfile(server: Server, *, path: str, job_id: int) -> int:
    """Note a file of a job outside of the work directory, which clean-up must delete; return the note's number.

    Raises
    ------
    PstampError
        Fault 1: there is no such job. Fault 3: the path is too long or empty.
    """
    values = values_of({"path": path}, {"path": pstampFile.path})

    def work() -> int:
        job = numbered(pstampJob, job_id)
        return int(pstampFile.create(**values, job_id=job.job_id).file_id)

    return server.store.work(work)


def deletefile(server: Server, *, job_id: int) -> None:
    """Delete the notes on all files of a job; the files stay."""
    server.store.work(lambda: pstampFile.delete().where(pstampFile.job_id == job_id).execute())


# -- users


def adddomain(server: Server, **options: Any) -> None:
    """Add an e-mail domain, with what its users may do.

    Options: set_domain, set_accessLevel, set_defaultProduct, set_defaultLabel.

    Raises
    ------
    PstampError
        Fault 1: the domain is there. Fault 3: a text is too long, or the domain empty.
    """
    key = {"set_domain": pstampUserDomain.domainName}
    _add(server, pstampUserDomain, values_of(options, {**key, **_of_people(pstampUserDomain)}), key, options)


def updatedomain(server: Server, *, domain: str, **options: Any) -> None:
    """Change what the users of an e-mail domain may do.

    Options: domain; set_accessLevel, set_defaultProduct, set_defaultLabel.

    Raises
    ------
    PstampError
        Fault 1: nothing to change. Fault 3: a text is too long.
    """
    where = conditions({"domain": domain}, [Filter("domain", pstampUserDomain.domainName)])
    _update(server, "updatedomain", pstampUserDomain, where, _of_people(pstampUserDomain), options)


def adduser(server: Server, **options: Any) -> None:
    """Add a user, whose rights go before those of the domain.

    Options: set_user, set_domain, set_accessLevel, set_defaultProduct, set_defaultLabel.

    Raises
    ------
    PstampError
        Fault 1: the user is there. Fault 3: a text is too long, or user or domain empty.
    """
    key = {"set_user": pstampUser.userName, "set_domain": pstampUser.domainName}
    _add(server, pstampUser, values_of(options, {**key, **_of_people(pstampUser)}), key, options)


def updateuser(server: Server, *, user: str, domain: str, **options: Any) -> None:
    """Change what a user may do.

    Options: user, domain; set_accessLevel, set_defaultProduct, set_defaultLabel.

    Raises
    ------
    PstampError
        Fault 1: nothing to change. Fault 3: a text is too long.
    """
    filters = [Filter("user", pstampUser.userName), Filter("domain", pstampUser.domainName)]
    where = conditions({"user": user, "domain": domain}, filters)
    _update(server, "updateuser", pstampUser, where, _of_people(pstampUser), options)


# -- access levels


def addaccesslevel(server: Server, **options: Any) -> None:
    """Let an access level use a project.

    Options: set_proj_id or set_project_name (the number goes first), set_accessLevel, set_mjd_min and
    set_mjd_max (MJD, d).

    Raises
    ------
    PstampError
        Fault 1: neither project option is given, there is no such project, or the level has a rule for it.
    """
    number, name = options.get("set_proj_id"), options.get("set_project_name")
    if number is None and name is None:
        raise PstampError("-addaccesslevel: -set_proj_id or -set_project_name is missing")
    values = values_of(options, {**_LEVEL, "set_accessLevel": pstampAccessLevel.accessLevel})

    def work() -> None:
        wanted = Filter("", pstampProject.name).condition(name) if number is None else pstampProject.proj_id == number
        project = pstampProject.get_or_none(wanted)
        if project is None:
            raise PstampError(f"there is no project {name if number is None else number}")
        of_project = pstampAccessLevel.proj_id == project.proj_id
        if pstampAccessLevel.get_or_none(of_project & (pstampAccessLevel.accessLevel == values["accessLevel"])):
            raise PstampError(
                f"project {project.name} has a rule for access level {values['accessLevel']} (-updateaccesslevel)"
            )
        pstampAccessLevel.create(proj_id=project.proj_id, **values)

    server.store.work(work)


def updateaccesslevel(server: Server, **options: Any) -> None:
    """Change the dates of projects that access levels may see (announced by IPP's tool, but not to be had there).

    Options: project_name, proj_id, accessLevel; set_mjd_min, set_mjd_max (MJD, d).

    Raises
    ------
    PstampError
        Fault 1: nothing to change. Fault 3: nothing to select by.
    """
    filters = [
        Filter("project_name", pstampProject.name), Filter("proj_id", pstampAccessLevel.proj_id),
        Filter("accessLevel", pstampAccessLevel.accessLevel),
    ]  # fmt: skip
    selected(options, filters, "updateaccesslevel")
    where = conditions(options, filters[1:])
    if "project_name" in options:
        named = pstampProject.select(pstampProject.proj_id).where(filters[0].condition(options["project_name"]))
        where.append(pstampAccessLevel.proj_id.in_(named))
    _update(server, "updateaccesslevel", pstampAccessLevel, where, _LEVEL, options)


# -- what they share


def _add(
    server: Server, table: type[Model], values: dict[str, Any], key: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Insert a row, unless there is one of the same key, which compares without regard to case."""

    def work() -> None:
        same = conditions(options, [Filter(option, column) for option, column in key.items()])
        if table.select().where(*same).exists():
            named = " ".join(f"-{option} {options[option]}" for option in key)
            raise PstampError(f"{named}: is there already")
        table.insert(values).execute()

    server.store.work(work)


def _update(
    server: Server,
    mode: str,
    table: type[Model],
    where: list[Any],
    columns: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Change rows; that there are none is no error."""
    values = values_of(options, columns)
    if not values:
        raise PstampError(
            f"-{mode}: nothing to change; at least one of {', '.join(f'-{name}' for name in columns)} is required"
        )
    server.store.work(lambda: table.update(values).where(*where).execute())
