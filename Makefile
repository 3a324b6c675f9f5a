# A thin front over CMake. `make` installs what is missing (Debian, Ubuntu) and builds ./pagebooth.
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
MINUTES ?= 10
TARGETS ?=
MAKEFLAGS += --no-print-directory
CTEST = ctest --output-on-failure --no-tests=error -j $(JOBS)

.PHONY: all setup test faults demo fidelity install asan tsan clang fuzz coverage bench cost-model format-check clean

all: setup
	@cmake --preset release >build.log || { cat build.log; exit 1; }
	@grep -h 'pagebooth:' build.log | sed 's/^-- //'; mv build.log build/configure.log
	cmake --build build -j $(JOBS) --target pagebooth
	@ln -sf build/pagebooth pagebooth

setup:
	@scripts/setup.sh

test: all
	cmake --build build -j $(JOBS)
	cd build && $(CTEST)

# Every fault at every operation of a run; hours.
faults: test
	bash tests/fault/test_checkpoint_faults.sh build/pagebooth . build all
	bash tests/fault/test_swap_checkpoint_faults.sh build/pagebooth . build all
	bash tests/exec/test_placement_exact.sh build/pagebooth . build all
	bash tests/exec/test_random_kills.sh build/pagebooth . build 1000
	bash tests/exec/test_mode_kills.sh build/pagebooth . build 100
	build/tests/test_store_power 2000 20000
	build/tests/test_store_tampering 10000
	build/tests/test_store_crash 1000
# Every kind of fault, thousands of them, has been through `make test`; these are delays, of 2,000 ms at each call.
	build/tests/test_store_faults 2000
	build/tests/test_paged_faults 2000

# Teaches the small model under demo/ a character that it has never seen; pictures in demo/out.
demo: all
	scripts/demo.sh

install: all
	cmake --install build --prefix $(PREFIX) --strip

# The same tests under the sanitizers.
asan tsan clang: setup
	cmake --preset $@ >/dev/null
	cmake --build build-$@ -j $(JOBS)
	cd build-$@ && $(CTEST)

# libFuzzer on each parser, MINUTES each: make fuzz MINUTES=60 TARGETS="json image". What is found stays in build-fuzz.
fuzz:
	@scripts/setup.sh clang
	cmake --preset fuzz >/dev/null
	cmake --build build-fuzz -j $(JOBS) --target fuzz_all
	scripts/fuzz.sh build-fuzz $(MINUTES) $(TARGETS)

# Lines and branches of the parsers that the unit tests and the corpora reach.
coverage: setup
	cmake --preset coverage >/dev/null
	cmake --build build-coverage -j $(JOBS)
	scripts/coverage.sh build-coverage

# What formats of the optimizer's state do to training, on two models: tables, loss curves and pictures in fidelity-out.
# One to two hours of two cores; see the script for how to ask for more or less.
fidelity: all
	cmake --build build -j $(JOBS) --target bench_fidelity --target bench_widen --target bench_curves
	scripts/fidelity.sh

bench: all
	cmake --build build -j $(JOBS) --target bench_step
	scripts/bench.sh build

# Plans of SD 1.4, 2.1 and SDXL beside those of an independent model (docs/cost_model.md); wants Python 3. Half an hour;
# MODEL_OPTIONS="--models sd14 --dtypes fp16" asks for less.
cost-model: all
	python3 scripts/cost_model.py --against ./pagebooth $(MODEL_OPTIONS)

# With clang-format 14; tests/unit/test_house.sh checks it too, where it is there.
format-check:
	git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cc' | xargs clang-format --dry-run --Werror

clean:
	rm -rf build build-asan build-tsan build-clang build-fuzz build-coverage pagebooth demo/out
