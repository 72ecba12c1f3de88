# `make` sets everything up in .venv; every other target does that first. The second time it takes no time:
# the stamp is older than pyproject.toml or constraints.txt only when one of them has changed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := nir,data,audio,speech,vision,report,log,peers,nest,sonata,dev
JOBS   ?= auto

# Threads that wait for each other sleep instead of spinning, which matters wherever cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := setup
.PHONY: setup demo test lint slow gpu gpu-report ptx nir-table reproduce-fsdd lava-env prove-lava clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	  f'snnsim needs Python 3.11 or newer, this is {v.major}.{v.minor}; try  make PYTHON=python3.11')"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing snnsim and its libraries into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --editable '.[$(EXTRAS)]'
	@touch $(STAMP)
	@echo "ready: $(BIN)/snnsim --help"

demo: $(STAMP)
	@$(BIN)/snnsim demo --out runs/demo

# One worker a core; each worker computes on one thread unless a test is about threads.
test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p snnsim

slow: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses $(JOBS) --dist worksteal

# What needs a CUDA device: the tests at real sizes, and every measurement of docs/gpu.md into one page (ten minutes).
# GPU_PYTHON is an interpreter that has torch with CUDA, numba-cuda and pytest, where it is not the one of `make`.
GPU_PYTHON ?= $(BIN)/python
GPU_REPORT ?= runs/gpu/report.md

gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(STAMP))
	@NUMBA_ENABLE_CUDASIM=0 PYTHONPATH=$(CURDIR):$$PYTHONPATH $(GPU_PYTHON) -m pytest -m gpu

gpu-report: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(STAMP))
	@NUMBA_ENABLE_CUDASIM=0 PYTHONPATH=$(CURDIR):$$PYTHONPATH $(GPU_PYTHON) -m snnsim bench cuda --out $(GPU_REPORT)

# CUDA kernels without a device: those that the simulator's tests start, compiled by an environment of its own.
CUDA_ENV ?= .venv-cuda

$(CUDA_ENV)/.installed:
	@test -x $(CUDA_ENV)/bin/python || $(PYTHON) -m venv $(CUDA_ENV)
	@$(CUDA_ENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  'numba-cuda[cu13]>=0.30' nvidia-cuda-nvcc
	@touch $@

ptx: $(STAMP) $(CUDA_ENV)/.installed
	@SNNSIM_PTX_RECORD=$(CUDA_ENV)/kernels.json OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n0 -p tests.ptx_record \
	  $(wildcard tests/test_cuda_*.py)
	@PYTHONPATH=. $(CUDA_ENV)/bin/python -m tests.ptx_check $(CUDA_ENV)/kernels.json

# Recorded digits from sound to accuracy. FSDD=folder takes sound that is already here; TEST says what is tested on
# (recordings 0-4, as the data set itself proposes).
FSDD  ?=
TEST  ?= index<5
SEEDS ?= 1
FSDD_OUT ?= runs/fsdd

reproduce-fsdd: $(STAMP)
	@test -n "$(FSDD)" || $(BIN)/snnsim data get fsdd --out data/fsdd
	@test -f "$(FSDD_OUT)/encoded" && test "$$(cat "$(FSDD_OUT)/encoded")" = "$(FSDD) $(TEST)" || { \
	  rm -rf "$(FSDD_OUT)" && mkdir -p "$(FSDD_OUT)" && \
	  $(BIN)/snnsim data encode "$(or $(FSDD),data/fsdd)" --name-pattern '{label}_{speaker}_{index}' --test '$(TEST)' \
	    --max-seconds 0.96 --out "$(FSDD_OUT)/spikes" && echo "$(FSDD) $(TEST)" > "$(FSDD_OUT)/encoded"; }
	@$(BIN)/snnsim reproduce speech-dcls --data "$(FSDD_OUT)/spikes" --seeds $(SEEDS) --epochs 200 --out "$(FSDD_OUT)/runs"

# docs/nir-compatibility.md, by running every program that is installed. Sinabs, Spyx and Rockpool want environments of
# their own: NIR_PYTHONS='--python sinabs=PATH --python spyx=PATH'.
NIR_PYTHONS ?=

nir-table: $(STAMP)
	@$(BIN)/python -m snnsim.export.nir_table --out docs/nir-compatibility.md $(NIR_PYTHONS)

# Lava's fixed-point simulator needs an environment of its own; its wheels ask for Python 3.10 and run on 3.11.
LAVA ?= .venv-lava
lava-env: $(LAVA)/.installed

$(LAVA)/.installed:
	@test -x $(LAVA)/bin/python || $(PYTHON) -m venv $(LAVA)
	@$(LAVA)/bin/python -m pip install --quiet torch==2.13.0 'numpy==2.4.*' scipy h5py matplotlib networkx==2.8.7 asteval
	@$(LAVA)/bin/python -m pip install --quiet --no-deps --ignore-requires-python lava-nc==0.10.0 lava-dl==0.6.0
	@touch $@

prove-lava: $(STAMP) lava-env
	@SNNSIM_PYTHON_LAVA=$(abspath $(LAVA))/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n0 \
	  -m slow -k lava tests/test_chip_export.py

clean:
	rm -rf $(VENV) $(LAVA) $(CUDA_ENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
