"""Images compiled to an index over their layer tars."""
