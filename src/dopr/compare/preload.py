"""Imported once by the server that runs are forked from: everything a run needs, and nothing that starts a thread."""

from dopr.quiet import quiet_libraries, uncollected

with uncollected():
    quiet_libraries()
    import dopr.train.run
    import dopr.train.trainer  # noqa: F401
