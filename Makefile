# make demo: an environment, and a first training in minutes.
# make test: the whole suite in the same environment.

PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v))) python3)
BIN = .venv/bin

.PHONY: demo test lint format clean

demo: .venv/installed
	$(BIN)/python trainers/train.py

test: .venv/developed
	$(BIN)/python -m pytest

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

clean:
	rm -rf .venv
