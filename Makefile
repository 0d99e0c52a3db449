# make demo: an environment, and a first training in minutes.
# make test: the whole suite in the same environment.
# make test-lowest: the suite with the lowest versions that the requirements admit.

PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v))) python3)
BIN = .venv/bin
LOWEST = .venv-lowest

.PHONY: demo test test-lowest lint format clean

demo: .venv/installed
	$(BIN)/python trainers/train.py

test: .venv/developed
	$(BIN)/python -m pytest

test-lowest: $(LOWEST)/developed
	$(LOWEST)/bin/python -m pytest

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	@echo "Installing TensorFlow and the rest: a few minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/developed: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(LOWEST)/developed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct \
	  -r requirements.txt -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv $(LOWEST)
