"""A scaling-law study's training runs: every combination of architectures, data sources and samples seen.

``grid.py`` reads the plan file into runs (``runs.py``), ``trunks.py`` finds what they share, ``waiting.py`` knows
whose turn it is. ``throughput.py`` measures how fast and large each architecture trains here, ``plan.py`` says what
the runs cost. ``jobs.py`` and ``processes.py`` train them on this machine, ``cluster.py`` on a Ray cluster,
``slurm.py`` hands them to Slurm; ``ranks.py`` is what processes know of those they train with, ``outcomes.py`` how
runs ended. ``budget.py`` reads the next run off a fitted law. Beside the runs OUT holds one hidden folder,
``.ladder``, with each run's configuration and log, and the trunks, so that ``OUT/*`` matches nothing but points of
the study.
"""
