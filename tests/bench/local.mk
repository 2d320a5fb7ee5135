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
    tests/bench/hist.c \
    tests/bench/publish.c \
    tests/bench/usage.c
tests_bench_belfry_bench_LDADD = $(ctl_libs)

tests_bench_floor_SOURCES = \
    tests/bench/floor.c
tests_bench_floor_LDADD = $(OPENSSL_LIBS)
