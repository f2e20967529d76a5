PYTHON ?= python3
# Another ComfyUI than the provisioned one, for every command.
export COMFYUI_DIR COMFYUI_PYTHON
HOST_PYTHON = $(if $(COMFYUI_PYTHON),$(COMFYUI_PYTHON),.host/venv/bin/python)
ifdef COMFYUI_PYTHON
# The tests' own packages, for a Python that is not provisioned here.
export PYTHONPATH := $(CURDIR)/.host/site$(if $(PYTHONPATH),:$(PYTHONPATH))
endif

.PHONY: demo test host page pictures bench evidence check

demo: host
	$(HOST_PYTHON) tools/demo.py

test: page pictures
	$(HOST_PYTHON) -m pytest -c tests/pytest.ini --rootdir tests tests

host:
	@$(PYTHON) tools/provision.py

page: host
	@$(PYTHON) tools/provision_page.py

pictures: host
	@$(PYTHON) tools/provision_evidence.py

evidence: pictures
	$(HOST_PYTHON) tools/evidence

bench: host
	$(HOST_PYTHON) tools/bench.py

# mypy needs a package name that is an identifier, whatever the clone's folder is called.
check: host
	@$(PYTHON) tools/provision_page.py javascript
	$(HOST_PYTHON) -m ruff format --check .
	$(HOST_PYTHON) -m ruff check .
	.host/javascript/node_modules/.bin/prettier --print-width 120 --check "js/*.{js,css}" "tests/javascript/*.js"
	@mkdir -p .host/check && ln -sfn ../.. .host/check/pack
	MYPYPATH=.host/check $(HOST_PYTHON) -m mypy -p pack.detail_guidance -p pack.instruments -p pack.host -p pack.nodes
