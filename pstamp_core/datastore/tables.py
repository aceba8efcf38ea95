"""The registry of the data store: which filesets and files each product has (`DataStoreServer/scripts/tabledefs.sql`).

By default the tables lie in the server's own database. Unlike the original's, the schema itself keeps the name of a
fileset unique within its product, and that of a file within its fileset. The order of registration is that of
`fileset_id`.
"""

from __future__ import annotations

from peewee import BigAutoField, BigIntegerField, BooleanField, ForeignKeyField, Model

from pstamp_core.database import NameField, Table, UtcDateTimeField

COLUMNS = 8
"""Numbered columns of a product, a fileset and a file; a file type has labels for four of them."""


class _ProductColumns(Table):
    prod_col_0 = NameField(null=True)
    prod_col_1 = NameField(null=True)
    prod_col_2 = NameField(null=True)
    prod_col_3 = NameField(null=True)
    prod_col_4 = NameField(null=True)
    prod_col_5 = NameField(null=True)
    prod_col_6 = NameField(null=True)
    prod_col_7 = NameField(null=True)


class _TypeColumns(Table):
    type_col_0 = NameField(null=True)
    type_col_1 = NameField(null=True)
    type_col_2 = NameField(null=True)
    type_col_3 = NameField(null=True)


class dsProduct(_ProductColumns):
    """A product: a series of filesets; `prod_col_0` to 7 are the labels of its own columns."""

    prod_id = BigAutoField()
    prod_name = NameField(unique=True)
    last_update = UtcDateTimeField()
    last_fs = NameField(null=True)
    type = NameField()
    description = NameField(255, default="")


class dsFileset(_ProductColumns):
    """A fileset; `prod_col_0` to 7 are its values for the product's columns, the first of them its request's number."""

    fileset_id = BigAutoField()
    product = ForeignKeyField(dsProduct, column_name="prod_id")
    fileset_name = NameField()
    reg_time = UtcDateTimeField()
    hide = BooleanField(default=False)
    type = NameField(null=True)

    class Meta:
        """A name occurs once in a product."""

        indexes = ((("product", "fileset_name"), True),)


class dsFile(_TypeColumns):
    """A file of a fileset, listed in the order of `file_id`."""

    file_id = BigAutoField()
    fileset = ForeignKeyField(dsFileset, column_name="fileset_id")
    file_name = NameField(255)
    bytes = BigIntegerField()
    md5sum = NameField(255)
    type = NameField(null=True)
    type_col_4 = NameField(null=True)
    type_col_5 = NameField(null=True)
    type_col_6 = NameField(null=True)
    type_col_7 = NameField(null=True)

    class Meta:
        """A name occurs once in a fileset."""

        indexes = ((("fileset", "file_name"), True),)


class dsFileType(_TypeColumns):
    """The labels of the columns that files of a type have for themselves."""

    type = NameField(primary_key=True)


TABLES: tuple[type[Model], ...] = (dsProduct, dsFileset, dsFile, dsFileType)

FILE_TYPES = {"chip": "chipname", "dbinfo": "component", "text": "component", "tgz": "component"}
"""The file types that come with the schema, and the label of their one column."""
