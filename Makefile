# ThawLoop's commands. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help install demo serve dev test test-slow coverage check bench lock clean
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
CAMPAIGN ?=
HEADLESS ?=
LABEL_STUDIO ?=
ARGS ?=
INSTALL ?=
WORKERS ?= 2

# Without compiled modules (some machines forbid them) every process takes seconds longer to start.
unexport PYTHONDONTWRITEBYTECODE

# Says what is done, does it, says how long it took: $(call step,words,command)
step = @started=$$SECONDS; printf '==> %s\n' '$(1)'; $(2); code=$$?; \
	printf '==> %s: %s in %s s\n' '$(1)' "$$([ $$code = 0 ] && echo done || echo FAILED)" "$$((SECONDS - started))"; exit $$code

help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Python packages, Label Studio, PostGIS, Redis, Chromium: what is missing here
	@$(PYTHON) scripts/bootstrap.py $(INSTALL)

demo: install ## The whole loop on generated scenes; CAMPAIGN=file.toml: on your data; HEADLESS=1: exit when done
	@$(RUN) manage.py demo $(if $(CAMPAIGN),--campaign '$(CAMPAIGN)') $(if $(filter-out 0,$(HEADLESS)),--headless) $(ARGS)

serve: install ## Everything for real use, data kept in var/serve, until Ctrl-C; THAWLOOP_PORT=8000
	@$(RUN) manage.py serve $(ARGS)

dev: install ## Web pages and workers for work on the code, restarted when it changes; LABEL_STUDIO=1: with Label Studio
	@$(RUN) manage.py dev $(if $(filter-out 0,$(LABEL_STUDIO)),--labelstudio) $(ARGS)

test: install ## Unit, integration (real PostGIS, Redis, Label Studio) and browser tests; WORKERS=2 processes
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: install ## The long trainings and soaks too
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m '' $(ARGS)

coverage: install ## Run the tests and print, for each room, how much of it ran; ARGS=tests/core: of a part
	$(call step,Tests,$(RUN) -m coverage erase && $(RUN) -m coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS))
	$(call step,Reports,$(RUN) -m coverage combine --quiet && $(RUN) -m coverage json --quiet)
	@$(RUN) scripts/coverage_by_room.py var/coverage/coverage.json

check: install ## Lint, types, import rules, migrations, links and pictures in the documentation, hooks
	$(call step,Lint (ruff check),$(BIN)/ruff check .)
	$(call step,Format (ruff format),$(BIN)/ruff format --check .)
	$(call step,Types (mypy),$(RUN) scripts/check_types.py)
	$(call step,Import rules (import-linter),$(BIN)/lint-imports)
	$(call step,Migrations,$(RUN) manage.py makemigrations --check --dry-run)
	$(call step,Documentation links,$(RUN) scripts/check_links.py)
	$(call step,Picture of the rooms,$(RUN) scripts/draw_rooms.py --check)
	$(call step,Hooks (pre-commit),$(BIN)/pre-commit validate-config)

bench: install ## The benchmarks, each against what one would otherwise use
	$(call step,Benchmarks,for file in benchmarks/[a-z]*.py; do echo "--- $$file"; $(RUN) "$$file" $(ARGS) || exit 1; done)

lock: ## Pin requirements/*.in anew; UPGRADE=1 looks for newer versions
	$(call step,Requirements,scripts/compile_requirements.sh)

clean: ## Remove everything that was made here; real data in var/serve stays unless ALL=1
	@$(PYTHON) scripts/clean.py $(if $(filter-out 0,$(ALL)),--all)
