"""Live directories as the read-only side: `DirectoryStack` merges them into one `unionfs.tree.Tree`."""
