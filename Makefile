# Every target works in the current Python environment; `make venv` makes one.
PYTHON ?= python3
# handle_segv: a test kills a server so. verify_asan_link_order: the shim comes first.
ASAN = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
       ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=0:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1
SANITIZED ?= -m "not peer and not surface and not whole" --ignore tests/models --ignore tests/servers
C_FILES = $(filter-out csrc/bpf/balance.h,$(wildcard csrc/*.h csrc/*/*.c csrc/*/*.h bench/*.c tests/units/*.c))

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

venv: ## a fresh environment in .venv with everything the tests need
	$(PYTHON) -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check '.[test,lint]'

dev: ## .venv with an editable install of a sanitized engine, and all tools; then `make one TEST=...`
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	rm -rf build src/recluster/*.so # objects of another build would be taken for up to date
	RECLUSTER_SANITIZE=1 CFLAGS=-g .venv/bin/pip install -q --disable-pip-version-check -e '.[test,lint]'
	rm -rf build

one: ## some tests under the sanitizers of `make dev`: TEST="tests/units/steer/test_steering.py -k weighted"
	$(ASAN) RECLUSTER_SANITIZE=1 .venv/bin/python -m pytest -n 0 $(TEST)

build: ## build in place (editable install)
	$(PYTHON) -m pip install -q --disable-pip-version-check -e '.[test]'

test: ## the whole suite, all lists
	$(PYTHON) -m pytest --whole

lint: ## ruff, mypy --strict, clang-format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	clang-format --dry-run --Werror $(C_FILES)

format: ## put everything into shape
	$(PYTHON) -m ruff check --fix -q . ; $(PYTHON) -m ruff format -q .
	clang-format -i $(C_FILES)

sanitize: ## what runs C code, with the engine under ASan and UBSan (SANITIZED=--whole for all)
	rm -rf build # objects of another build would be taken for up to date
	RECLUSTER_SANITIZE=1 $(PYTHON) -m pip install -q --disable-pip-version-check --force-reinstall --no-deps .
	rm -rf build
	cd / && nm -D "$$($(PYTHON) -c 'import importlib.util as u; print(u.find_spec("recluster._engine").origin)')" | grep -q __asan_
	$(ASAN) RECLUSTER_SANITIZE=1 $(PYTHON) -m pytest $(SANITIZED)

figures: ## measure how connections are accepted, into build/figures (two hours, a quiet machine)
	mkdir -p build/figures
	-$(PYTHON) bench/accept_cost.py --json build/figures/cost.json | tee build/figures/cost.txt
	-$(PYTHON) bench/accept_designs.py --json build/figures/designs.json | tee build/figures/designs.txt
	-$(PYTHON) -m recluster.bench --server http,threading,asyncio,uvloop,node --rounds 3 \
		--json build/figures/policies.json --picture build/figures/policies.svg | tee build/figures/policies.txt

bpf: ## compile csrc/bpf/balance.bpf.c into the committed header (needs clang)
	$(PYTHON) csrc/bpf/build.py --write

clean: ## remove what was built
	rm -rf build dist *.egg-info src/*.egg-info src/recluster/_engine.c src/recluster/*.so

.PHONY: help venv dev one build test lint format sanitize figures bpf clean
