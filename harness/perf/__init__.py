"""Speed over time: measured by ``tests/perf``, kept under ``results/perf``, compared between revisions. ``docs/speed.md`` says how."""
