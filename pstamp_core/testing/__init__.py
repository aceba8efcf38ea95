"""What the tests of pstamp use themselves, for those who test programs that import it.

`stores`: a store to be thrown away, a clock that is moved by hand, and a check that nothing went a way it may not go.
`killpoints`: work cut short at any place, and databases that fail.
`invariants`: what holds of all rows at any time, whatever happened.
`stateful`: random lives of requests, jobs and dependents, beside a model; it needs hypothesis.
"""

from pstamp_core.testing.stores import NOW, Clock, check_history, temporary_store

__all__ = ["NOW", "Clock", "check_history", "temporary_store"]
