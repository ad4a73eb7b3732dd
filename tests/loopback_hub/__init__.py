"""A Hugging Face hub on the loopback, for the real clients: server, repositories, faults, and what real ones hold."""

from loopback_hub.hub import Hub
from loopback_hub.repositories import Repository

__all__ = ["Hub", "Repository"]
