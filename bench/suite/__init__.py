"""Every workload on every subject, alternating in one run: `script/bench`; see ../README.md."""
