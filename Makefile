PYTHON ?= .venv/bin/python

.PHONY: tour test lint figures tutorials conformance site

tour:
	$(PYTHON) -m dinat_ref tour

test:
	$(PYTHON) -m pytest

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

figures: # draw them again, with the numbers behind them
	$(PYTHON) figures/make_figures.py

tutorials: # run the scripts into notebooks
	$(PYTHON) tutorials/build.py

site: # build the web site in build/site; a warning or a dead link is an error
	$(PYTHON) tutorials/site/build.py

conformance: # verify the kernels of other projects that can be installed here; OUT=FILE for the table in a file
	$(PYTHON) -m dinat_ref.testing.conformance $(if $(OUT),--out $(OUT))
