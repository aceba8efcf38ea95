"""`dsprodtool`: add a product to the data store's registry, or take it out."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from runners import console
from runners.console import HOME, Home, server_of
from runners.dsreg import DbName, DbServer, Root, Type

app = console.new_app()

Label = Annotated[str | None, typer.Option(help="Label of a column of its own.", show_default=False)]


@app.command()
def dsprodtool(
    add: Annotated[str | None, typer.Option("--add", help="Register this product.", show_default=False)] = None,
    delete: Annotated[str | None, typer.Option("--del", help="Take this one out.", show_default=False)] = None,
    type_: Type = None,
    description: Annotated[
        str | None, typer.Option("--description", help="What it is; needed with --add.", show_default=False)
    ] = None,
    rm: Annotated[bool, typer.Option("--rm", help="With --del: delete the folders of its filesets, too.")] = False,
    ps0: Label = None,
    ps1: Label = None,
    ps2: Label = None,
    ps3: Label = None,
    ps4: Label = None,
    ps5: Label = None,
    ps6: Label = None,
    ps7: Label = None,
    home: Home = HOME,
    dbname: DbName = None,
    dbserver: DbServer = None,
    dsroot: Root = None,
) -> None:
    """Register a product (--add), or take it out with all its filesets (--del), which works only at a terminal.

    Ends in 0; 1: it is there already, or is not there, or you did not type YES; 2: wrong options or names, its folder
    has files, or the disk or the database failed; 3: wrong configuration.

    Example: dsprodtool --add asks --type psrequest --description "Requests for stamps"
    """
    from pstamp_core.tasks import register

    if add is not None and delete is None:
        if type_ is None or description is None or rm:
            raise typer.BadParameter("--add needs --type and --description, and takes no --rm")
        labels = [ps0, ps1, ps2, ps3, ps4, ps5, ps6, ps7]
        server = server_of(home, dbname=dbname, dbserver=dbserver)
        register.add_product(server, add, type_, description, labels, root=dsroot)
        return
    if delete is None or add is not None:
        raise typer.BadParameter("expected either --add NAME or --del NAME")
    if not sys.stdin.isatty():  # a script can take filesets out with dsreg, one by one
        raise typer.BadParameter("--del works only at a terminal, where somebody can say YES")
    server = server_of(home, dbname=dbname, dbserver=dbserver)
    what = "and deletes their folders" if rm else "and leaves their files, which are served no more"
    print(f"This takes product {delete} with all its filesets out of the registry, {what}.")
    if input("Type YES to go on: ") != "YES":
        print("nothing was done")
        raise typer.Exit(1)
    count = register.remove_product(server, delete, rm=rm, root=dsroot)
    print(f"product {delete} is gone, filesets: {count}")


def main() -> None:
    """Run `dsprodtool`."""
    console.main(app, usage=2)
