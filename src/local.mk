# src/: the two programs.
# Everything but the two main() stands in libraries, so that unit tests can link it.
# One file per line, sorted.

noinst_LTLIBRARIES += src/libctl.la src/libmaster.la

# --- belfryd: the master ------------------------------------------------------------------------
sbin_PROGRAMS += belfryd

belfryd_SOURCES = \
    src/belfryd.c
belfryd_LDFLAGS = $(AM_LDFLAGS) $(PIE_LDFLAGS)
belfryd_LDADD = $(master_libs)

src_libmaster_la_SOURCES = \
    src/activation.c \
    src/activation.h \
    src/control.c \
    src/control.h \
    src/demo_page.c \
    src/dev.c \
    src/dev.h \
    src/embedded.c \
    src/embedded.h \
    src/explain.c \
    src/explain.h \
    src/generation.c \
    src/generation.h \
    src/inherit.c \
    src/inherit.h \
    src/keywatch.c \
    src/keywatch.h \
    src/listeners.c \
    src/listeners.h \
    src/master.c \
    src/master.h \
    src/master_priv.h \
    src/notify.c \
    src/notify.h \
    src/pages.c \
    src/pages.h \
    src/pidfile.c \
    src/pidfile.h \
    src/privileges.c \
    src/privileges.h \
    src/pulse.c \
    src/pulse.h \
    src/rates.c \
    src/rates.h \
    src/reload.c \
    src/scratch.c \
    src/scratch.h \
    src/slots.c \
    src/slots.h \
    src/spawn.c \
    src/spawn.h \
    src/status.c \
    src/supervisor.c \
    src/supervisor.h \
    src/unixsock.c \
    src/unixsock.h \
    src/upgrade.c \
    src/upgrade.def \
    src/upgrade.h \
    src/upgrade_link.c \
    src/upgrade_link.h

src_libmaster_la_LIBTOOLFLAGS = --tag=disable-shared
src_libmaster_la_LIBADD = $(EV_LIBS) $(LIBSYSTEMD_LIBS) $(ZLIB_LIBS)

# What npm made of the pages in client/, if it did: make pages.
nodist_src_libmaster_la_SOURCES = \
    src/pages_data.c
CLEANFILES += src/pages_data.c

# Looks each time, and leaves the file alone when nothing changed.
src/pages_data.c: look-at-pages
	$(AM_V_at)$(MKDIR_P) src && \
	    $(SHELL) $(srcdir)/client/embed $(srcdir)/client/pages/dist src/pages_data.c
look-at-pages:
.PHONY: look-at-pages

# --- belfryctl: the tool for people -------------------------------------------------------------
bin_PROGRAMS += belfryctl

belfryctl_SOURCES = \
    src/belfryctl.c
belfryctl_LDFLAGS = $(AM_LDFLAGS) $(PIE_LDFLAGS)
belfryctl_LDADD = $(ctl_libs)

src_libctl_la_SOURCES = \
    src/ctl.h \
    src/ctl_args.c \
    src/ctl_conns.c \
    src/ctl_control.c \
    src/ctl_emit.c \
    src/ctl_events.c \
    src/ctl_explain.c \
    src/ctl_history.c \
    src/ctl_listen.c \
    src/ctl_redis.c \
    src/ctl_redis.h \
    src/ctl_reply.c \
    src/ctl_reply.h \
    src/ctl_status.c \
    src/ctl_stored.c \
    src/ctl_stored.h \
    src/ctl_token.c \
    src/ctl_top.c \
    src/wsclient.c \
    src/wsclient.h

src_libctl_la_LIBTOOLFLAGS = --tag=disable-shared
src_libctl_la_LIBADD = $(EV_LIBS) $(WSLAY_LIBS)
