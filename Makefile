PYTHON ?= python3
# Another ComfyUI than the provisioned one, for every command.
export COMFYUI_DIR COMFYUI_PYTHON
HOST_PYTHON = $(if $(COMFYUI_PYTHON),$(COMFYUI_PYTHON),.host/venv/bin/python)
ifdef COMFYUI_PYTHON
# The tests' own packages, for a Python that is not provisioned here.
export PYTHONPATH := $(CURDIR)/.host/site$(if $(PYTHONPATH),:$(PYTHONPATH))
endif

PYTEST = $(HOST_PYTHON) -m pytest -c tests/pytest.ini --rootdir tests
LAB = $(HOST_PYTHON) -m pytest -c lab/tests/pytest.ini --rootdir lab/tests
# A file of tests is a process's; each computes with one thread, or they wait for each other.
EVERY_CORE = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test test-host test-core: export OMP_NUM_THREADS = 1

.PHONY: demo test test-core test-host host page bench evidence check

# DEMO="--pairs 4": further arguments of lab/demo.py.
demo: host
	@$(PYTHON) tools/provision_page.py javascript
	$(HOST_PYTHON) lab/demo.py $(DEMO)

test: page check
	$(PYTEST) $(EVERY_CORE) tests
	$(LAB) $(EVERY_CORE) lab/tests

# The first that fails ends it. A family of each kind: joined and separate streams, text first, hooked, across, video.
CORE = test_formula test_dit test_reported_faults test_perturbations test_rows test_contract test_options
KINDS = (Flux or Qwen-Image or Lumina or AuraFlow or HunyuanVideo or video) and not compiled
test-core: host
	$(PYTEST) $(EVERY_CORE) --exitfirst tests/mathematics $(CORE:%=tests/host/%.py)
	$(PYTEST) $(EVERY_CORE) --exitfirst tests/host/test_families.py tests/host/test_layouts.py -k "$(KINDS)"

# What needs neither a browser nor Node.js.
test-host: host
	$(PYTEST) $(EVERY_CORE) tests/mathematics tests/host
	$(LAB) $(EVERY_CORE) lab/tests

host:
	@$(PYTHON) tools/provision.py

page: host
	@$(PYTHON) tools/provision_page.py

# MODEL=sd3.5_medium.safetensors PROMPTS="a fox|a street at night" STEPS=28: a page of that model in evidence/.
# EVIDENCE="--clip … --vae …": further arguments of lab/evidence.
evidence: host
	$(if $(MODEL),,@$(PYTHON) tools/provision_page.py javascript)
	$(HOST_PYTHON) lab/evidence $(if $(MODEL),--model "$(MODEL)") $(if $(PROMPTS),--prompts "$(PROMPTS)") \
		$(if $(STEPS),--steps $(STEPS)) $(EVIDENCE)

# BENCH="--only SD3 --rounds 3": further arguments of lab/bench.py.
bench: host
	$(HOST_PYTHON) lab/bench.py $(BENCH)

# mypy needs a package name that is an identifier, whatever the clone's folder is called.
check: host
	@$(PYTHON) tools/provision_page.py javascript
	$(HOST_PYTHON) -m ruff format --check .
	$(HOST_PYTHON) -m ruff check .
	.host/javascript/node_modules/.bin/prettier --print-width 120 --check "js/**/*.{js,css}" "tests/javascript/*.js"
	@$(PYTHON) tools/validate.py
	@mkdir -p .host/check && ln -sfn ../.. .host/check/pack
	MYPYPATH=.host/check $(HOST_PYTHON) -m mypy -p pack.dit -p pack.methods -p pack.nodes
