# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
DEMO ?= outputs
PUBLISHED ?= outputs/published
RESULTS ?= results/synthetic
AT_ONCE ?= 2
REV ?= origin/main
SWEEPS ?= support_size pair_strategy loss_weighting

.PHONY: install demo test check bench speed results clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# Ray Tune schedules, DeepSpeed trains MT-CLAR on synthetic clips, every control stands beside it.
demo: $(STAMP)
	$(BIN)/harness sweep support_size output_dir=$(DEMO)

# Files of tests, AT_ONCE at a time, as many of them wait for processes to start; in their order, so that the slow ones are not last.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(AT_ONCE) --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Speed: times, memory, ratios and budgets, kept under results/perf; nothing is asserted. Against a revision: make speed REV=main
bench: $(STAMP)
	$(BIN)/harness perf run

speed: $(STAMP)
	$(BIN)/harness perf compare $(REV)

# The leaderboards under results/, on synthetic data: what is missing is run, what differs from the commit is said. Long without a GPU.
results: $(STAMP)
	set -e; for sweep in $(SWEEPS); do $(BIN)/harness sweep $$sweep output_dir=$(PUBLISHED); done
	$(BIN)/harness publish --output-dir $(PUBLISHED) --results $(RESULTS)
	git --no-pager diff --stat -- $(RESULTS)
	git status --short -- $(RESULTS)

clean:
	rm -rf .venv outputs .pytest_cache .mypy_cache .ruff_cache
