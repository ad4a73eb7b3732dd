"""``clipeval check``: is a checkpoint worse than the one before? Rules, paired tests, verdicts, and who is told how."""
