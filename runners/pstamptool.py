"""`pstamptool` and `pst`: the program through which IPP's scripts and operators read and change the database.

Exit status: 0 done, also when nothing matched; 1 the mode lacks an option, or would do nothing; 2 the database or a
disk failed while at work; 3 wrong command line, wrong configuration, no such database; 5 what was asked for can't be
done, or -listreq found no request (3 in IPP, as a broken configuration); -getdependent ends in the dependent's fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runners.ippargs import FLAG, Program, run

if TYPE_CHECKING:
    from pstamp_core.settings import Settings
    from pstamp_core.tasks.tool.rows import Rows

_SHOWN = "limit=0 simple"

MODES: dict[str, tuple[str, str]] = {
    # requests
    "addreq": ("register a request; prints its number", "uri!3 name label ds_id=0 username proj_id=0"),
    "pendingreq": ("list the requests to parse", f"req_id label* {_SHOWN}"),
    "listreq": ("look requests up", f"req_id not_req_id name username state label {_SHOWN}"),
    "completedreq": ("list the requests to finish", f"label* {_SHOWN}"),
    "updatereq": (
        "change requests",
        "req_id req_id_max fault state reqType name username label* timestamp_begin timestamp_end "
        "set_state set_label set_outProduct set_outdir set_uri set_name set_username set_reqType set_fault clearfault",
    ),
    "revertreq": ("let faulted requests be tried again", "req_id fault state label* limit~"),
    "pendingcleanup": ("list the requests to delete from disk", f"req_id ds_id label* {_SHOWN}"),
    # jobs
    "addjob": (
        "add a job; prints its number",
        "req_id!1 rownum!1 job_type=stamp outputBase state=run fault=0 exp_id=0 options=0 dep_id=0 parent_id=0 "
        "is_parent",
    ),
    "listjob": ("look jobs up", f"req_id job_id dep_id fault jobType state {_SHOWN}"),
    "pendingjob": ("list the jobs to run", f"job_id req_id label* {_SHOWN}"),
    "updatejob": ("change jobs", "job_id req_id dep_id state fault fault_count label* set_state set_fault limit~"),
    "stopdependentjob": (
        "give dependents up with the jobs that wait for them",
        "req_id job_id dep_id stage_id component fault fault_count label* set_fault!1 set_state limit~",
    ),
    "revertjob": (
        "let faulted jobs be tried again", "req_id job_id req_id_min fault label* clear_fault_count all limit~",
    ),
    # dependents
    "getdependent": (
        "find or make the dependent for a component; prints its number",
        "stage!3 stage_id!1 component!3 imagedb!3 rlabel outdir!3 need_magic hold no_create",
    ),
    "pendingdependent": (
        "list the dependents to check",
        f"stage imagedb rlabel stage_id dep_id job_id req_id component label* includefaulted {_SHOWN}",
    ),
    "updatedependent": ("change a dependent", "dep_id!1 set_state set_fault"),
    "revertdependent": (
        "let faulted dependents be checked again", "dep_id job_id req_id fault label* clear_fault_count limit~",
    ),
    # data stores
    "adddatastore": (
        "add a data store",
        "set_uri!3 set_out_product!3 set_last_fileset set_state=enabled set_label set_poll_interval=60",
    ),
    "datastore": ("list the enabled data stores; with -all all", "ds_id ready all simple"),
    "moddatastore": (
        "change a data store",
        "ds_id!1 set_last_fileset set_uri set_state set_label set_poll_interval update_timestamp state",
    ),
    # projects
    "addproject": ("add a project", "name!3 state=enabled imagedb!3 dvodb inst!3 telescope!3 need_magic"),
    "project": ("list the projects", "name simple"),
    "modproject": ("change a project", "proj_id!1 state!1 imagedb dvodb camera telescope need_magic"),
    # the rest
    "getwebrequestnum": ("print a number that was never given before", ""),
    "addfile": ("note a file for clean-up; prints its number", "job_id!1 path!3"),
    "listfile": ("look files up", f"file_id job_id req_id {_SHOWN}"),
    "deletefile": ("forget the files of a job", "job_id!1"),
    "adddomain": ("add a domain", "set_domain!3 set_accessLevel!1 set_defaultProduct set_defaultLabel"),
    "updatedomain": ("change a domain", "domain!3 set_accessLevel set_defaultProduct set_defaultLabel"),
    "listdomain": ("list domains", f"domain accessLevel {_SHOWN}"),
    "adduser": ("add a user", "set_user!3 set_domain!3 set_accessLevel=0 set_defaultProduct set_defaultLabel"),
    "updateuser": ("change a user", "user!3 domain!3 set_accessLevel set_defaultProduct set_defaultLabel"),
    "listuser": ("look users up", f"user domain accessLevel {_SHOWN}"),
    "addaccesslevel": (
        "say what a level may see of a project",
        "set_proj_id set_project_name set_accessLevel!1 set_mjd_min=0 set_mjd_max=0",
    ),
    "listaccesslevel": ("list what levels may see", f"project_name proj_id accessLevel {_SHOWN}"),
    "updateaccesslevel": (
        "change what a level may see of a project", "project_name proj_id accessLevel set_mjd_min set_mjd_max",
    ),
}  # fmt: skip
"""What each mode does, and its options (`pstamptoolConfig.c`), as `Option.of` reads them."""

_NUMBERS = (
    "req_id", "not_req_id", "req_id_max", "req_id_min", "job_id", "dep_id", "ds_id", "proj_id", "set_proj_id",
    "exp_id", "parent_id", "stage_id", "file_id", "options", "limit",
)  # fmt: skip
_FLAGS = (
    "simple", "clearfault", "is_parent", "clear_fault_count", "all", "need_magic", "hold", "no_create",
    "includefaulted", "ready", "update_timestamp",
)  # fmt: skip

PSTAMPTOOL = Program(
    "pstamptool",
    __doc__.partition("\n\n")[2].strip(),
    MODES,
    {
        **dict.fromkeys(_NUMBERS, (0, 2**63 - 1)),
        **dict.fromkeys(("fault", "set_fault"), (0, 2**15 - 1)),
        **dict.fromkeys(("fault_count", "set_poll_interval"), (0, 2**31 - 1)),
        **dict.fromkeys(("accessLevel", "set_accessLevel"), (-(2**31), 2**31 - 1)),
        **dict.fromkeys(("set_mjd_min", "set_mjd_max"), "number"),
        **dict.fromkeys(("timestamp_begin", "timestamp_end"), "time"),
        **dict.fromkeys(_FLAGS, FLAG),
    },
)


def call(mode: str, settings: Settings, options: dict[str, Any]) -> Rows | int | None:
    """Do what a mode does; a mode that takes ``-simple`` is a list."""
    from pstamp_core.tasks.tool import opened

    with opened(settings) as store:
        if "simple" in PSTAMPTOOL.options(mode):
            from pstamp_core.tasks.tool import lists

            found: Rows = getattr(lists, mode)(store, **options)
            return found
        from pstamp_core.tasks.server import Server
        from pstamp_core.tasks.tool import changes

        number: int | None = getattr(changes, mode)(Server(settings, store), **options)
        return number


def main() -> None:
    """Run `pstamptool`."""
    run(PSTAMPTOOL, call)
