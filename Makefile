# Every target does its own set-up: a virtual environment in .venv, the install, then the work.
# Nothing but Python 3.12 or newer has to be there. Another interpreter: make demo PYTHON=/path/to/python3.13

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench calibrate reports docs

# The versions in constraints.txt are tested on 3.13, so it goes first.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3 python3.14 python3.12 python \
  /usr/local/bin/python3 /usr/bin/python3)
CAN_MAKE_VENV := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 12))

RUN := .venv/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --no-input --quiet --quiet install
# One thread per worker: two workers fill two cores, and sums come out the same on every run.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest
CODE := popstats generate tests docs reports
DEMO := runs/digits
# Some recipes of small networks collapse; Student-t noise down-weights them.
HOW := --noise student
# Status 3: the fit was rejected by its own diagnostics; the report is there all the same, and says so first.
WRITTEN := || [ $$? -eq 3 ]

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: .venv/installed-all ## everything: both packages, Ray, the developers' tools

demo: .venv/installed-demo ## make a population on the digits, then its report (minutes on two cores)
	@$(RUN) -m generate.population --out $(DEMO)
	@$(RUN) -m popstats report $(DEMO) -o $(DEMO)/report.html $(HOW) $(WRITTEN)
	@echo $(CURDIR)/$(DEMO)/report.html

test: .venv/installed-all ## the default test suite, on two workers
	@$(PYTEST) -n 2 --benchmark-disable

lint: .venv/installed-all ## ruff (rules and format) and mypy --strict
	@.venv/bin/ruff check $(CODE)
	@.venv/bin/ruff format --check $(CODE)
	@$(RUN) -m mypy

bench: .venv/installed-all ## the benchmarks of design numbers; prints figures
	@$(PYTEST) -m benchmark -s tests/benchmarks

calibrate: .venv/installed-all ## error rates of the verdicts on simulated truths (long)
	@$(RUN) -m popstats calibrate --workers 2 -o popstats/planning/calibration.json

reports: .venv/installed-all ## the report of every shipped population, into reports/, and the pictures in README and docs/gallery
	@for table in data/*.parquet; do [ -e "$$table" ] || continue; \
	  name=$$(basename "$$table" .parquet); \
	  case "$$name" in nats-*|hw-gpt-*) how= ;; *) how="$(HOW)" ;; esac; \
	  page="reports/$$name/report.html"; mkdir -p "reports/$$name"; rm -f "$$page"; \
	  $(RUN) -m popstats report "$$name" -o "$$page" $$how || [ -s "$$page" ] || exit 1; \
	done
	@$(RUN) -m popstats report cifar10-10k-resnet8 --axis params -o reports/cifar10-10k-resnet8/report-params.html $(HOW) $(WRITTEN)
	@mkdir -p reports/digits-width reports/digits-depth
	@$(RUN) -m popstats report digits-width-1x digits-width-0.5x digits-width-2x -o reports/digits-width/report.html $(HOW) $(WRITTEN)
	@$(RUN) -m popstats report digits-width-1x digits-depth-cifar_resnet14 digits-depth-cifar_resnet20 \
	  -o reports/digits-depth/report.html $(HOW) $(WRITTEN)
	@$(RUN) docs/pictures.py

docs: .venv/installed-all ## the documentation site, into build/site; warnings are errors
	@$(RUN) docs/build_tables.py || true
	@$(RUN) -m sphinx --fail-on-warning --keep-going --quiet --conf-dir docs . build/site
	@echo '<meta http-equiv="refresh" content="0; url=docs/index.html">' > build/site/index.html
	@echo $(CURDIR)/build/site/index.html

# One stamp per set of extras, so that a second run installs nothing; the full set serves the demo too.
.venv/installed-all: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing popstats, generate and the developers' tools into .venv (a few minutes the first time)"
	@$(PIP) --editable '.[generate,ray,onnx,docs,dev]' --constraint constraints.txt
	@touch .venv/installed-demo $@

.venv/installed-demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing popstats and generate into .venv (a few minutes the first time)"
	@$(PIP) --editable '.[generate]' --constraint constraints.txt
	@touch $@

.venv/bin/python:
	@for candidate in $(CANDIDATES); do \
	  if $$candidate -c '$(CAN_MAKE_VENV)' 2>/dev/null; then chosen=$$candidate; break; fi; \
	  seen="$${seen:+$$seen, }$$candidate is $$($$candidate --version 2>/dev/null | grep . || echo absent)"; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "popstats needs Python 3.12 or newer with its venv module (Debian: python3-venv); here $$seen." \
	    "Name one that fits: make PYTHON=/path/to/python3.13" >&2; \
	  exit 1; \
	fi; \
	$$chosen -m venv --clear .venv
