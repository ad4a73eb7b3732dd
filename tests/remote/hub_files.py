"""What the repository ``org/it`` of the tests holds: a file in LFS, and two in git."""

BIG = bytes(range(256)) * 8_192
FILES = {"weights.bin": BIG, "config.json": b'{"a": 1}' * 700, "notes": b"of no suffix"}
