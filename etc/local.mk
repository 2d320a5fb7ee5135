# etc/: examples for operators, installed beside the documentation.
# One file per line, sorted.

examplesdir = $(docdir)/examples

dist_examples_DATA = \
    etc/belfry.conf \
    etc/haproxy.cfg \
    etc/logrotate \
    etc/nginx.conf \
    etc/sysusers.conf

# What make leaves behind when the files are gone.
uninstall-hook:
	-rmdir "$(DESTDIR)$(examplesdir)" "$(DESTDIR)$(docdir)" 2>/dev/null

# Where bash-completion looks (below the prefix: in XDG_DATA_DIRS).
bashcompletiondir = $(datadir)/bash-completion/completions

dist_bashcompletion_DATA = \
    etc/completion/belfryctl

nodist_examples_DATA = \
    etc/belfryd.service

if INSTALL_UNIT
nodist_systemdsystemunit_DATA = \
    etc/belfryd.service
endif

EXTRA_DIST += \
    etc/belfryd.service.in \
    etc/demo.sh

CLEANFILES += \
    etc/belfryd.service

# The unit names paths, which only make knows in full.
etc/belfryd.service: etc/belfryd.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) etc && $(SED) \
	    -e 's|@sbindir[@]|$(sbindir)|g' \
	    -e 's|@sysconfdir[@]|$(sysconfdir)|g' \
	    $(srcdir)/etc/belfryd.service.in >$@.tmp && mv $@.tmp $@
