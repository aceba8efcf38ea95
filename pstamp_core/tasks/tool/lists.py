"""The modes of `pstamptool` that print rows."""
