PYTHON ?= .venv/bin/python

.PHONY: tour test lint figures

tour:
	$(PYTHON) -m dinat_ref tour

test:
	$(PYTHON) -m pytest

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

figures:
	$(PYTHON) figures/make_figures.py
