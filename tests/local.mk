# tests/: everything `make check` runs. One file per line, sorted.
#
#   unit   tests/unit/check_X.c, one program each, Check; reports TAP
#   e2e    tests/e2e/test_X.py, the built programs with a real redis-server; reports TAP
#   lint   tests/lint/X.sh, the sources, tables and examples read as text; exit status 0, 1, 77

# --- unit ---------------------------------------------------------------------------------------
unit_tests = \
    tests/unit/check_address \
    tests/unit/check_admission \
    tests/unit/check_bench_client \
    tests/unit/check_chance \
    tests/unit/check_clock \
    tests/unit/check_closes \
    tests/unit/check_commands \
    tests/unit/check_counters \
    tests/unit/check_ctl_events \
    tests/unit/check_deflate \
    tests/unit/check_delivery \
    tests/unit/check_dev \
    tests/unit/check_emit \
    tests/unit/check_events \
    tests/unit/check_extensions \
    tests/unit/check_filter \
    tests/unit/check_frame \
    tests/unit/check_guessers \
    tests/unit/check_handover \
    tests/unit/check_handover_state \
    tests/unit/check_handshake \
    tests/unit/check_http \
    tests/unit/check_hub \
    tests/unit/check_inquiry \
    tests/unit/check_ip \
    tests/unit/check_ipc \
    tests/unit/check_json \
    tests/unit/check_jwks \
    tests/unit/check_keys \
    tests/unit/check_listeners \
    tests/unit/check_log \
    tests/unit/check_marker \
    tests/unit/check_merge \
    tests/unit/check_message \
    tests/unit/check_notify \
    tests/unit/check_options \
    tests/unit/check_options_check \
    tests/unit/check_outq \
    tests/unit/check_pack \
    tests/unit/check_privileges \
    tests/unit/check_proxyhead \
    tests/unit/check_publish \
    tests/unit/check_push \
    tests/unit/check_rates \
    tests/unit/check_recent \
    tests/unit/check_redislink \
    tests/unit/check_redisurl \
    tests/unit/check_sandbox \
    tests/unit/check_segment \
    tests/unit/check_session \
    tests/unit/check_session_lag \
    tests/unit/check_slab \
    tests/unit/check_slots \
    tests/unit/check_store \
    tests/unit/check_stored \
    tests/unit/check_subscriber \
    tests/unit/check_text \
    tests/unit/check_tlsio \
    tests/unit/check_token \
    tests/unit/check_token_keys \
    tests/unit/check_token_known \
    tests/unit/check_trace \
    tests/unit/check_upgrade \
    tests/unit/check_usertable \
    tests/unit/check_uuid7 \
    tests/unit/check_verdict \
    tests/unit/check_wheel \
    tests/unit/check_wsclient \
    tests/unit/check_wsock

if HAVE_CHECK
check_PROGRAMS += $(unit_tests)
TESTS += $(unit_tests)
endif

# For every program here: automake's default source of tests/unit/check_X is tests/unit/check_X.c.
LDADD = src/libctl.la $(master_libs) $(CHECK_LIBS)

tests_unit_check_bench_client_SOURCES = \
    tests/bench/client.c \
    tests/bench/hist.c \
    tests/unit/check_bench_client.c

# These fill structs of `char *` from literals, and forms from tables, as only tests may.
tests_unit_check_publish_CFLAGS = $(AM_CFLAGS) -Wno-format-nonliteral
tests_unit_check_jwks_CFLAGS = $(AM_CFLAGS) -Wno-write-strings
tests_unit_check_token_CFLAGS = $(AM_CFLAGS) -Wno-format-nonliteral -Wno-write-strings
tests_unit_check_token_keys_CFLAGS = $(AM_CFLAGS) -Wno-write-strings

# --- end to end ---------------------------------------------------------------------------------
e2e_tests = \
    tests/e2e/test_attacks.py \
    tests/e2e/test_belfryctl.py \
    tests/e2e/test_bench_incoming.py \
    tests/e2e/test_bench_reload.py \
    tests/e2e/test_bench_tokens.py \
    tests/e2e/test_chaos.py \
    tests/e2e/test_commands.py \
    tests/e2e/test_crash.py \
    tests/e2e/test_crowd.py \
    tests/e2e/test_deflate.py \
    tests/e2e/test_delivery.py \
    tests/e2e/test_dev.py \
    tests/e2e/test_echo.py \
    tests/e2e/test_explain.py \
    tests/e2e/test_half_open.py \
    tests/e2e/test_handshake.py \
    tests/e2e/test_handover.py \
    tests/e2e/test_http.py \
    tests/e2e/test_jwks.py \
    tests/e2e/test_libbelfry.py \
    tests/e2e/test_limits.py \
    tests/e2e/test_memory.py \
    tests/e2e/test_metrics.py \
    tests/e2e/test_operator.py \
    tests/e2e/test_processes.py \
    tests/e2e/test_proxies.py \
    tests/e2e/test_redis_faults.py \
    tests/e2e/test_redis_hostile.py \
    tests/e2e/test_reload.py \
    tests/e2e/test_revoke.py \
    tests/e2e/test_sandbox.py \
    tests/e2e/test_slow.py \
    tests/e2e/test_systemd.py \
    tests/e2e/test_tls.py \
    tests/e2e/test_tokens.py \
    tests/e2e/test_upgrade.py

TESTS += $(e2e_tests)

# The program of another version, as far as it goes by what one worker hands to another.
check_PROGRAMS += tests/e2e/belfryd-other-state
tests_e2e_belfryd_other_state_SOURCES = \
    src/belfryd.c \
    workers/handover_giver.c \
    workers/handover_state.c \
    workers/handover_taker.c
tests_e2e_belfryd_other_state_CPPFLAGS = $(AM_CPPFLAGS) -DHANDOVER_VERSION=1000000u
tests_e2e_belfryd_other_state_LDADD = $(master_libs)

# --- lint ---------------------------------------------------------------------------------------
lint_tests = \
    tests/lint/client.sh \
    tests/lint/closes.sh \
    tests/lint/counters.sh \
    tests/lint/events.sh \
    tests/lint/haproxy.sh \
    tests/lint/includes.sh \
    tests/lint/layout.sh \
    tests/lint/libraries.sh \
    tests/lint/limits.sh \
    tests/lint/listed.sh \
    tests/lint/mandoc.sh \
    tests/lint/nginx.sh \
    tests/lint/options.sh \
    tests/lint/readmes.sh \
    tests/lint/scripts.sh \
    tests/lint/size.sh \
    tests/lint/systemd.sh

TESTS += $(lint_tests)

# --- what they are run with ---------------------------------------------------------------------
test_support = \
    tests/e2e/conftest.py \
    tests/e2e/harness.py \
    tests/e2e/processes.py \
    tests/e2e/run \
    tests/e2e/tap_report.py \
    tests/e2e/valgrind \
    tests/e2e/waiting.py \
    tests/example_emit.c \
    tests/lint/lib.sh \
    tests/lint/limits.def \
    tests/unit/options_fixture.h \
    tests/unit/redis_server.h \
    tests/unit/run \
    tests/unit/session_fixture.h \
    tests/unit/token_maker.h

EXTRA_DIST += \
    $(e2e_tests) \
    $(lint_tests) \
    $(test_support) \
    tests/chroot

TEST_EXTENSIONS = .py .sh

# Check prints TAP itself when told to by the environment.
LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/unit/run
PY_LOG_DRIVER = $(LOG_DRIVER)
PY_LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/e2e/run
SH_LOG_COMPILER = $(SHELL)

AM_TESTS_ENVIRONMENT = \
    BELFRYD='$(abs_top_builddir)/belfryd'; export BELFRYD; \
    BELFRYCTL='$(abs_top_builddir)/belfryctl'; export BELFRYCTL; \
    LIBBELFRY='$(abs_top_builddir)/libbelfry.la'; export LIBBELFRY; \
    PYTHON3='$(PYTHON3)'; export PYTHON3; \
    CC='$(CC)'; export CC; \
    CK_TAP_LOG_FILE_NAME=-; export CK_TAP_LOG_FILE_NAME; \
    : $${ASAN_OPTIONS=detect_stack_use_after_return=1:exitcode=99}; export ASAN_OPTIONS; \
    : $${UBSAN_OPTIONS=print_stacktrace=1}; export UBSAN_OPTIONS;

# The scripts look for programs and libraries that check_PROGRAMS does not name.
$(e2e_tests:.py=.log): belfryd belfryctl
tests/e2e/test_bench_reload.log tests/e2e/test_bench_tokens.log: tests/bench/belfry-bench

# --- soak and chaos ------------------------------------------------------------------------------
include tests/chaos/local.mk

# --- cost ----------------------------------------------------------------------------------------
include tests/bench/local.mk

# --- the model checker of delivery --------------------------------------------------------------
# make check explores every scenario up to a small bound, and mutants, each of which must be caught;
# make model goes as far as it gets in MODEL_SECONDS.
check_PROGRAMS += tests/model/model
TESTS += tests/model/model tests/model/mutants.sh

tests_model_model_SOURCES = \
    tests/model/arena.c \
    tests/model/explore.c \
    tests/model/judge.c \
    tests/model/main.c \
    tests/model/model.h \
    tests/model/steps.c \
    tests/model/world.c \
    workers/slab.c
# Whose memory is the arena's, so that it is put back like all else.
tests_model_model_CPPFLAGS = $(AM_CPPFLAGS) -DSLAB_IS_HEAP
tests_model_model_LDADD = $(worker_libs)
tests_model_model_LDFLAGS = $(AM_LDFLAGS) $(model_wrap)
model_wrap = -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc -Wl,--wrap=free

EXTRA_DIST += \
    tests/model/mutants.sh

# What mutants.sh compiles one changed source with, and links it with in front of the libraries.
AM_TESTS_ENVIRONMENT += \
    MODEL_COMPILE='$(CC) -std=gnu11 -D_GNU_SOURCE $(SAN_CFLAGS) $(COVERAGE_CFLAGS) $(EV_CFLAGS) -w -O1'; \
    MODEL_LINK='$(LIBTOOL) --silent --tag=CC --mode=link $(CC) $(SAN_CFLAGS) $(COVERAGE_CFLAGS) $(CFLAGS) $(tests_model_model_LDFLAGS) $(LDFLAGS)'; \
    MODEL_OBJECTS='$(tests_model_model_OBJECTS)'; \
    MODEL_LIBS='$(tests_model_model_LDADD) $(LIBS)'; \
    export MODEL_COMPILE MODEL_LINK MODEL_OBJECTS MODEL_LIBS;

tests/model/mutants.log: tests/model/model

MODEL_SECONDS = 60
model: tests/model/model
	tests/model/model --seconds=$(MODEL_SECONDS)
.PHONY: model

# --- static analysis ----------------------------------------------------------------------------
include tests/analyze/local.mk

# --- fuzzing ------------------------------------------------------------------------------------
include tests/fuzz/local.mk

# --- a bare Debian ------------------------------------------------------------------------------
# make check-chroot DIST=bookworm|trixie: the two commands in a fresh minimal system (root only).
DIST = bookworm
check-chroot:
	$(SHELL) $(top_srcdir)/tests/chroot $(DIST)
.PHONY: check-chroot

# --- memcheck -----------------------------------------------------------------------------------
# make check-valgrind E2E='-k tls': the end-to-end tests under valgrind, see tests/e2e/valgrind.
E2E =
check-valgrind: all
	@$(MAKE) tests/e2e/belfryd-other-state
	BELFRYD='$(abs_top_builddir)/belfryd' BELFRYCTL='$(abs_top_builddir)/belfryctl' \
	    LIBBELFRY='$(abs_top_builddir)/libbelfry.la' PYTHON3='$(PYTHON3)' CC='$(CC)' \
	    $(SHELL) $(top_srcdir)/tests/e2e/valgrind $(E2E)
.PHONY: check-valgrind
