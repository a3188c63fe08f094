# `make demo` shows it, `make test` and `make integration` test it, `make mutants` tests the tests. The environment is
# .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test integration mutants lint format types imports wheel ui clean

demo: .venv/.demo
	@$(BIN)/python -m flows.demo

test: .venv/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not integration'

integration: .venv/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m integration

mutants: .venv/.dev
	$(BIN)/python -m benchmarks.mutants

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks.mutants --check

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: .venv/.dev
	rm -rf dist
	$(BIN)/python -m build --wheel
	$(BIN)/python -m tests.wheel_check dist/*.whl

# The server reports its use to nobody. The UI calls the API at the server's own port.
PORT ?= 4200
# An environment that was installed by hand is used as it is: the active one, or .venv.
PREFECT := $(firstword $(wildcard $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV)/bin/prefect) $(BIN)/prefect))
ui: $(if $(PREFECT),,.venv/.demo)
	@PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_UI_API_URL=http://127.0.0.1:$(PORT)/api \
		$(or $(PREFECT),$(BIN)/prefect) server start --host 127.0.0.1 --port $(PORT)

clean:
	rm -rf .venv dist build .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@echo 'installing into .venv: some 2 GB, some minutes'
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.demo
