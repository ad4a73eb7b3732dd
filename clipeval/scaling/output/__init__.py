"""A fit on the terminal, in figures and in files."""
