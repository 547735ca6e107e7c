"""What is measured: one file a family of tasks, and the readers of the datasets they stand on."""
