"""The data store: filesets on disk, their registry, and the three levels of index.txt."""

from pstamp_core.datastore.filesets import DataStore
from pstamp_core.datastore.tables import TABLES

__all__ = ["TABLES", "DataStore"]
