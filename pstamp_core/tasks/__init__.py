"""One module for each task that a scheduler starts; the only place where the other packages meet."""
