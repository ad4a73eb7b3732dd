"""A scaling-law study's training runs: every combination of architectures, data sources and samples seen.

``grid.py`` reads the plan file into runs, ``throughput.py`` measures how fast and large each architecture trains here,
``plan.py`` says what the runs cost, ``jobs.py`` and ``processes.py`` train them, ``slurm.py`` hands them to a cluster,
and ``budget.py`` reads the next run off a fitted law. Beside the runs OUT holds one hidden folder, ``.ladder``, with
each run's configuration and log, so that ``OUT/*`` matches nothing but runs.
"""
