# tests/bench: belfry-bench, a load generator, and floor, the least a server can do. Built with
# everything else, so that they keep building; see README.md there.
noinst_PROGRAMS += tests/bench/belfry-bench tests/bench/floor

tests_bench_belfry_bench_SOURCES = \
    tests/bench/args.c \
    tests/bench/belfry-bench.c \
    tests/bench/bench.h \
    tests/bench/client.c \
    tests/bench/client.h \
    tests/bench/crowd.c \
    tests/bench/flow.c \
    tests/bench/hist.c \
    tests/bench/publish.c \
    tests/bench/usage.c
tests_bench_belfry_bench_LDADD = $(ctl_libs)

tests_bench_floor_SOURCES = \
    tests/bench/floor.c
tests_bench_floor_LDADD = $(OPENSSL_LIBS)

bench_support = \
    tests/bench/README.md \
    tests/bench/RESULTS.md \
    tests/bench/baseline.txt \
    tests/bench/bench.py \
    tests/bench/callgrind.py \
    tests/bench/churn.py \
    tests/bench/parts.py \
    tests/bench/peer_ws.js \
    tests/bench/peers.py \
    tests/bench/reload.py \
    tests/bench/run \
    tests/bench/tables.py \
    tests/bench/whole.py

EXTRA_DIST += $(bench_support)

bench_environment = BELFRYD='$(abs_top_builddir)/belfryd' \
    BELFRY_BENCH='$(abs_top_builddir)/tests/bench/belfry-bench' \
    BENCH_FLOOR='$(abs_top_builddir)/tests/bench/floor' PYTHON3='$(PYTHON3)'
bench_programs = belfryd tests/bench/belfry-bench tests/bench/floor

# What a message and a connection cost, beside the floor and the peers that are at hand:
# make bench BENCH_OPTIONS='--rounds 9 --peers floor,belfry' (tests/bench/run --help).
BENCH_OPTIONS =
bench: $(bench_programs)
	@$(bench_environment) $(SHELL) $(top_srcdir)/tests/bench/run $(BENCH_OPTIONS)
bench-quick: $(bench_programs)
	@$(bench_environment) $(SHELL) $(top_srcdir)/tests/bench/run --quick $(BENCH_OPTIONS)
# The worker's instructions for one delivery and one connection; fails when they are more than
# tests/bench/baseline.txt allows.
bench-callgrind: $(bench_programs)
	@$(bench_environment) PYTHONDONTWRITEBYTECODE=1 $(PYTHON3) $(top_srcdir)/tests/bench/callgrind.py $(BENCH_OPTIONS)
# What clients notice of reloads and upgrades, and what Nchan's notice of a reload:
# make bench-reload BENCH_OPTIONS='--connections 500 --peers belfry'.
bench-reload: belfryd tests/bench/belfry-bench
	@$(bench_environment) PYTHONDONTWRITEBYTECODE=1 $(PYTHON3) $(top_srcdir)/tests/bench/reload.py $(BENCH_OPTIONS)
# Everything, in about 20 minutes, and from it the tables of RESULTS.md and README.md.
bench-whole: $(bench_programs)
	@$(bench_environment) PYTHONDONTWRITEBYTECODE=1 $(PYTHON3) $(top_srcdir)/tests/bench/whole.py $(BENCH_OPTIONS)
# Whether memory stays where it was, in half an hour: make bench-churn BENCH_OPTIONS='--seconds 600'.
bench-churn: $(bench_programs)
	@$(bench_environment) PYTHONDONTWRITEBYTECODE=1 $(PYTHON3) $(top_srcdir)/tests/bench/churn.py $(BENCH_OPTIONS)
.PHONY: bench bench-quick bench-callgrind bench-reload bench-whole bench-churn
