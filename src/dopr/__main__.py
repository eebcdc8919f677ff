"""``python -m dopr`` is the same as ``dopr``."""

from dopr.cli.main import main

main()
