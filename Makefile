# make sweep    installs and answers the quick start's question on synthetic motion videos
# make test     installs and runs the tests, but for the slow ones (make test-all runs these, too)
# make test-services   runs the slow tests of what people open: MLflow's pages, the report and Optuna's dashboard in a
#               browser, the team's tracking server on PostgreSQL, MLflow's outages; skips what is not installed
# make check    style, types, layers
# make docs     builds the documentation's site into build/site
# make floors   installs the lowest versions that pyproject.toml allows, apart, and tries them (3 GB)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/installed
# Keep compiled modules, whatever the caller's environment says: a run of the tests starts hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/pip install --disable-pip-version-check -c constraints.txt

.PHONY: install sweep test test-all test-services check docs floors ui clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kdtune needs Python 3.11 or later: make PYTHON=/path/to/python3 …"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing kdtune and its packages into .venv: 3 GB to download, 6 GB on the disk. The same command resumes."
	@test -x $(BIN)/uv || $(PIP) --quiet uv || true
	@# uv loads in parallel and keeps what it has loaded. It asks the index that pip is set up for, and none of pip's other
	@# sources: a torch from elsewhere does not fit torchvision.
	@index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/pip config get global.index-url 2>/dev/null)}}"; \
	  export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 $${index:+"UV_DEFAULT_INDEX=$$index"}; \
	  $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e '.[dev]' || \
	  { echo "uv could not install the packages; trying pip, which takes longer."; $(PIP) -e '.[dev]'; }
	touch $@

sweep: install
	@echo "Training small networks on synthetic motion videos: about 5 minutes on two cores; the same command resumes."
	$(BIN)/kdtune sweep sweeps/lambda_tau.yaml

test: install
	$(BIN)/python -m pytest -n 2 --max-worker-restart 0 -m "not slow"

test-all: install
	$(BIN)/python -m pytest -n 2 --max-worker-restart 0

SERVICES := $(addprefix tests/test_,$(addsuffix .py,browser report_page optuna_dashboard team_server outages))

test-services: install
	$(BIN)/python -m pytest -n 2 --max-worker-restart 0 -m slow $(SERVICES)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	$(BIN)/python docs/generator

floors:
	$(PYTHON) tests/floors.py .venv-floors

ui: install
	$(BIN)/kdtune ui

clean:
	rm -rf .venv .venv-floors build *.egg-info runs data mlflow/mlflow.db* mlflow/artifacts
