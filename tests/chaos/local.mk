# tests/chaos: soak and chaos. make check runs a short one (tests/e2e/test_chaos.py); long ones are
# for make chaos SECONDS=1800, with SEED=... to have a run's faults again and CHAOS_OPTIONS for the
# rest (tests/chaos/run --help).
chaos_support = \
    tests/chaos/actors.py \
    tests/chaos/chaos.py \
    tests/chaos/faults.py \
    tests/chaos/ledger.py \
    tests/chaos/run

EXTRA_DIST += $(chaos_support)

SECONDS = 60
SEED =
CHAOS_OPTIONS =
chaos: belfryd belfryctl
	@$(AM_TESTS_ENVIRONMENT) $(SHELL) $(top_srcdir)/tests/chaos/run --seconds '$(SECONDS)' \
	    --seed '$(SEED)' $(CHAOS_OPTIONS)
.PHONY: chaos
