"""Published results in the formats they were published in, turned into rows of the tidy table.

One module per origin; each lists the ``FORMATS`` it reads. ``clipeval.importers.import_files`` is the way in.
"""
