# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every target does the set-up that it needs; a second run finds it done.

SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python

EXT_SOURCES := $(wildcard ext/*/*.[ch]) setup.py
EXT_MODULE := $(wildcard python/virmirror/_core*.so)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# how long and how often, for the targets of "check-all"
SECONDS ?= 60
CYCLES ?= 10000
# for "check-distro": what debootstrap calls it
DISTRO ?= trixie
# for the targets of "bench": --quick, --runs 9, --dir /mnt ...
BENCH_FLAGS ?=

.PHONY: help demo test check build lint fuzz asan tsan leak valgrind check-all check-distro tidy \
        docs dist bench clean system system-test system-bench system-all FORCE

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: build ## set everything up and move a running guest before your eyes
	$(PY) examples/demo.py

test: build/ext-werror.stamp ## set everything up and run all tests, on a real QEMU too
	$(PY) -m pytest

check: build/ext-werror.stamp ## the fast part of the tests: lints, C and Python without QEMU
	$(PY) -m pytest -m "not qemu"

build: build/ext.stamp ## set everything up and build the extension in place

lint: build/ext-werror.stamp ## only the lints
	$(PY) -m pytest tests/lint

fuzz: $(VENV)/test.stamp ## run each fuzz target for SECONDS=60, and one that has a bug to be found
	$(MAKE) -s -C tests/fuzz canary run SECONDS=$(SECONDS)

asan: $(VENV)/test.stamp ## the Python tests without QEMU, with ASan, UBSan and LeakSanitizer in the extension
	$(PY) tests/sanitize/asan.py

tsan: system-test ## the C tests with ThreadSanitizer, and a program that has a race to be found
	$(MAKE) -s -C tests/sanitize race
	$(MAKE) -s -C tests/c run CC=clang SANITIZE=thread

leak: build/ext-werror.stamp ## CYCLES=10000 of everything that allocates; memory and references stay
	$(PY) tests/leak/leak.py --cycles $(CYCLES)

valgrind: build/ext-werror.stamp system-all ## the heart of the Python tests in valgrind, with the system's Python
	tests/sanitize/valgrind.sh

check-all: build/ext-werror.stamp ## all that is too long for "make test": full sweeps, fuzz, asan, tsan, leak, valgrind
	VIRMIRROR_FULL=1 $(PY) -m pytest -o faulthandler_timeout=0
	$(MAKE) fuzz asan tsan leak valgrind

check-distro: system-all ## DISTRO=trixie or sid: the demo and the tests on that release of Debian, as root
	tools/check-distro.sh $(DISTRO)

bench: build system-bench ## measure virmirror beside other tools; bench-NAME is one of bench/NAME.py
	$(PY) bench/all.py --json build/bench $(BENCH_FLAGS)

bench-%: build system-bench
	$(PY) bench/$*.py --json build/bench/$*.json $(BENCH_FLAGS)

tidy: build/ext-werror.stamp ## clang-tidy over the C sources (wants clang-tidy installed)
	clang-tidy --quiet $(wildcard ext/*/*.c) -- -std=gnu11 -Iext/core -Iext/binding \
	    -DPy_LIMITED_API=0x030B0000 \
	    -isystem $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))') \
	    $(shell pkg-config --cflags libvirt glib-2.0 libxml-2.0 liburing libxxhash)

docs: build/ext-werror.stamp ## the documentation, as HTML in build/docs
	$(PY) -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs

dist: build/ext-werror.stamp ## a source distribution in dist/
	$(PY) -c 'from setuptools.build_meta import build_sdist; print(build_sdist("dist"))'

clean: ## remove everything that was built, and .venv
	rm -rf build dist python/*.egg-info $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f python/virmirror/_core*.so
	find python tests bench examples docs -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# System packages: a query each time, an installation only when one is missing.
system:
	@tools/setup-system.sh

system-test:
	@tools/setup-system.sh --test

system-bench:
	@tools/setup-system.sh --bench

system-all:
	@tools/setup-system.sh --all

# The demo needs only what virmirror itself needs; the tests bring their tools.
$(VENV)/run.stamp: pyproject.toml tools/setup-venv.sh | system
	tools/setup-venv.sh $(VENV)
	@touch $@

$(VENV)/test.stamp: pyproject.toml tools/setup-venv.sh | system-test
	tools/setup-venv.sh $(VENV) test,dev
	@touch $(VENV)/run.stamp $@

# The tests want a build without warnings; the demo takes either build.
build/ext.stamp: $(EXT_SOURCES) $(VENV)/run.stamp $(if $(EXT_MODULE),,FORCE)
	$(PY) setup.py -q build_ext --inplace --force
	@mkdir -p build && touch $@

build/ext-werror.stamp: $(EXT_SOURCES) $(VENV)/test.stamp $(if $(EXT_MODULE),,FORCE)
	VIRMIRROR_WERROR=1 $(PY) setup.py -q build_ext --inplace --force
	@mkdir -p build && touch build/ext.stamp $@
