"""Tasks: problems with checkable answers, the verifiers that check them, and the packaged worlds."""
