"""Request, Job and Dependent as explicit state machines: pure tables, no I/O, no clock."""
