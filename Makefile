PYTHON ?= python3
export COMFYUI_DIR COMFYUI_PYTHON
HOST_PYTHON = $(if $(COMFYUI_PYTHON),$(COMFYUI_PYTHON),.host/venv/bin/python)

.PHONY: host
host:
	@$(PYTHON) tools/provision.py
