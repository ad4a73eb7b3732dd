"""``python -m clipeval_train`` is ``clipeval-train``."""

from clipeval_train.cli import main

main()
