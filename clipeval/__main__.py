"""``python -m clipeval``."""

from clipeval.cli import main

main()
