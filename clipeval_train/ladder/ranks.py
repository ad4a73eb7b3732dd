"""What a process is told of those it trains with, in the variables that ``torchrun`` sets too."""

from __future__ import annotations

import socket


def variables(rank: int, local_rank: int, size: int, local_size: int, address: str, port: int) -> dict[str, str]:
    """Of process ``rank`` of ``size``, which is ``local_rank`` of ``local_size`` on its machine. All meet at the
    address and port of the first."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(local_size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


def free_port(address: str) -> int:
    """A port that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        return int(listener.getsockname()[1])
