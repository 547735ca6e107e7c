"""A world of drawn people whose labels are known, and one file a dataset layout that lays it on disk."""
