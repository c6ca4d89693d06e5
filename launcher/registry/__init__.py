"""Registries over the network: pull, push, search, and who one is there (OCI distribution specification 1.1).

It stands above `launcher.image`, which knows nothing of networks. Nothing here is imported unless a registry is asked.
"""
