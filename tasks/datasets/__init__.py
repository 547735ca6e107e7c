"""One file a dataset layout, each with ``read(root) -> samples.Reading``; ``synthetic`` writes the same layouts from drawn faces."""
