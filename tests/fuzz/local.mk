# tests/fuzz: libFuzzer targets. make check replays their corpora, with any compiler; make fuzz
# builds and runs them with clang; see README.md there.
fuzz_targets = \
    tests/fuzz/fuzz_commands \
    tests/fuzz/fuzz_conn \
    tests/fuzz/fuzz_control \
    tests/fuzz/fuzz_deflate \
    tests/fuzz/fuzz_handover \
    tests/fuzz/fuzz_http \
    tests/fuzz/fuzz_jwks \
    tests/fuzz/fuzz_message \
    tests/fuzz/fuzz_options \
    tests/fuzz/fuzz_proxyhead \
    tests/fuzz/fuzz_push \
    tests/fuzz/fuzz_redis \
    tests/fuzz/fuzz_reply \
    tests/fuzz/fuzz_text \
    tests/fuzz/fuzz_token \
    tests/fuzz/fuzz_upgrade \
    tests/fuzz/fuzz_wsclient \
    tests/fuzz/fuzz_wsock

check_PROGRAMS += $(fuzz_targets)

fuzz_libs = $(fuzz_main) src/libctl.la $(master_libs)
tests_fuzz_fuzz_commands_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_conn_SOURCES = \
    tests/fuzz/fuzz_conn.c \
    tests/fuzz/worker.c \
    tests/fuzz/worker.h
tests_fuzz_fuzz_conn_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_control_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_deflate_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_handover_SOURCES = \
    tests/fuzz/fuzz_handover.c \
    tests/fuzz/worker.c \
    tests/fuzz/worker.h
tests_fuzz_fuzz_handover_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_http_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_jwks_CFLAGS = $(AM_CFLAGS) -Wno-write-strings
tests_fuzz_fuzz_jwks_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_message_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_options_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_proxyhead_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_push_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_redis_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_reply_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_text_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_token_CFLAGS = $(AM_CFLAGS) -Wno-write-strings
tests_fuzz_fuzz_token_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_upgrade_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_wsclient_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_wsock_LDADD = $(fuzz_libs)

if FUZZ
fuzz_main = $(FUZZ_MAIN)
else
fuzz_main = tests/fuzz/libreplay.la
TESTS += $(fuzz_targets)
check_LTLIBRARIES = tests/fuzz/libreplay.la
tests_fuzz_libreplay_la_SOURCES = \
    tests/fuzz/fuzz.h \
    tests/fuzz/replay.c
tests_fuzz_libreplay_la_LIBTOOLFLAGS = --tag=disable-shared
endif

AM_TESTS_ENVIRONMENT += \
    FUZZ_CORPUS='$(abs_top_srcdir)/tests/fuzz/corpus'; export FUZZ_CORPUS;

fuzz_support = \
    tests/fuzz/README.md \
    tests/fuzz/coverage \
    tests/fuzz/minimize \
    tests/fuzz/run \
    tests/fuzz/seeds.py

EXTRA_DIST += \
    $(fuzz_support) \
    tests/fuzz/corpus \
    tests/fuzz/dict

# make fuzz: every target for FUZZ_SECONDS; make fuzz FUZZ_TARGET='http wsock' FUZZ_SECONDS=1800.
# In a build of its own, ./fuzz-build, where what it finds stays, too.
FUZZ_ALL = $(fuzz_targets:tests/fuzz/fuzz_%=%)
FUZZ_TARGET = $(FUZZ_ALL)
FUZZ_SECONDS = 60
fuzz_environment = FUZZ_CC='$(FUZZ_CC)' FUZZ_COV='$(FUZZ_COV)' \
    FUZZ_ALL='$(FUZZ_ALL)' FUZZ_TARGETS='$(FUZZ_TARGET)' FUZZ_SECONDS='$(FUZZ_SECONDS)' \
    srcdir='$(abs_top_srcdir)'

fuzz:
	@MAKE="$(MAKE)" $(fuzz_environment) $(SHELL) $(top_srcdir)/tests/fuzz/run
# Which lines the corpora reach: of the tree, and of ./fuzz-build where it is.
fuzz-coverage:
	@MAKE="$(MAKE)" $(fuzz_environment) $(SHELL) $(top_srcdir)/tests/fuzz/coverage
# Takes what ./fuzz-build has found into the corpora of the tree, as few inputs as can be.
fuzz-corpus:
	@$(fuzz_environment) $(SHELL) $(top_srcdir)/tests/fuzz/minimize
.PHONY: fuzz fuzz-corpus fuzz-coverage

distclean-local:
	rm -rf fuzz-build fuzz-coverage-build
