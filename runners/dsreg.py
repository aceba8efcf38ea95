"""`dsreg`: add a fileset to the data store's registry, or take it out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from runners import console
from runners.console import HOME, Home, server_of

app = console.new_app()

Value = Annotated[str | None, typer.Option(help="Value of a column of the product's own.", show_default=False)]
DbName = Annotated[
    str | None,
    typer.Option("--dbname", "--ds_dbname", help="The database, if not the configured one.", show_default=False),
]
DbServer = Annotated[
    str | None,
    typer.Option(
        "--dbserver", "--dbhost", "--ds_dbserver", help="Its host, if not the configured one.", show_default=False
    ),
]
Type = Annotated[str | None, typer.Option("--type", help="Its type; needed with --add.", show_default=False)]
Root = Annotated[
    Path | None, typer.Option("--dsroot", help="The data store's folder, if not the server's.", show_default=False)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what was done.")]


@app.command()
def dsreg(
    product: Annotated[str, typer.Option("--product", help="The product.", show_default=False)],
    add: Annotated[str | None, typer.Option("--add", help="Register this fileset.", show_default=False)] = None,
    delete: Annotated[str | None, typer.Option("--del", help="Take this one out.", show_default=False)] = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Its type; needed with --add.", show_default=False)
    ] = None,
    listing: Annotated[
        str | None,
        typer.Option("--list", help="The list of files; - for standard input.", show_default=False),
    ] = None,
    empty: Annotated[bool, typer.Option("--empty", help="The fileset has no files.")] = False,
    link: Annotated[bool, typer.Option("--link", help="Make symbolic links to the files in its folder.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files to its folder.")] = False,
    datapath: Annotated[
        Path | None,
        typer.Option("--datapath", help="Where the listed files are.", show_default="the fileset's folder"),
    ] = None,
    abspath: Annotated[bool, typer.Option("--abspath", help="The list has complete paths.")] = False,
    rm: Annotated[bool, typer.Option("--rm", help="With --del: delete its folder, too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --del: it need not be there.")] = False,
    ps0: Value = None,
    ps1: Value = None,
    ps2: Value = None,
    ps3: Value = None,
    ps4: Value = None,
    ps5: Value = None,
    ps6: Value = None,
    ps7: Value = None,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
    dsroot: Root = None,
    verbose: Verbose = False,
) -> None:
    """Register a fileset (--add), or take it out (--del); the list has a line name|bytes|md5|type|... for each file.

    Sizes and md5 may be left out of the list (name|||type); where they are given, they must be those of the files.
    Ends in 0; 1: it is there already, or is not there; 2: wrong options, names or files, or the disk or the database
    failed; 3: wrong configuration; 4: the list is malformed or empty, or does not fit the files.

    Example: dsreg --add night_7 --product asks --type PSREQUEST --list files.txt --copy --datapath /data/asks
    """
    from pstamp_core.tasks import register

    if delete is not None and add is None:
        if type_ or listing or empty or link or copy or datapath or abspath:
            raise typer.BadParameter("--del takes only --product, --rm and --force")
        server = server_of(home, dbname=dbname, dbserver=dbserver)
        register.remove_fileset(server, product, delete, rm=rm, force=force, root=dsroot)
        said = f"{product}/{delete} is not registered any more"
    elif add is not None and delete is None:
        if type_ is None or (listing is None) != empty or (link and copy) or rm or force:
            raise typer.BadParameter(
                "--add needs --type, and --list FILE or --empty; it takes at most one of --link and --copy, not --rm, "
                "not --force"
            )
        server = server_of(home, dbname=dbname, dbserver=dbserver)
        text = None if listing is None else sys.stdin.read() if listing == "-" else Path(listing).read_text()
        values = [value or None for value in (ps0, ps1, ps2, ps3, ps4, ps5, ps6, ps7)]
        place: register.Place | None = "link" if link else "copy" if copy else None
        count = register.add_fileset(
            server, product, add, type_, text,
            values=values, place=place, datapath=datapath, abspath=abspath, root=dsroot,
        )  # fmt: skip
        said = f"registered {product}/{add}, files: {count}"
    else:
        raise typer.BadParameter("expected either --add NAME or --del NAME")
    if verbose:
        print(said)


def main() -> None:
    """Run `dsreg`."""
    console.main(app, usage=2)
