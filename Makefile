# Short names for `python3 dev.py TASK`; `make` alone lists them.
PYTHON ?= python3
TASKS := setup demo check lint test invariants integration chaos mutants fuzz nightly model-check simulate bench peers profile figures pythons lock docs format build coverage

.PHONY: help $(TASKS) deps clean
help:
	@$(PYTHON) dev.py

$(TASKS):
	@$(PYTHON) dev.py $@

deps: setup

clean:
	rm -rf .venv dist reports data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
