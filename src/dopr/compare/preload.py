"""Imported once by the server that runs are forked from: everything a run needs, and nothing that starts a thread."""

from dopr.quiet import quiet_libraries

quiet_libraries()

import dopr.train.run  # noqa: E402
import dopr.train.trainer  # noqa: E402, F401
