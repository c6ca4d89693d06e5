"""A union file system in user space: one writable upper over one read-only tree of any number of layers."""

__version__ = "0.1.0"
