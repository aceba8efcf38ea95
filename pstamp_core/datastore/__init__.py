"""The data store: filesets on disk, their registry, and the three levels of index.txt."""
