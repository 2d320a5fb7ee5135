# client/: the front end's package. It is TypeScript, and none of it is needed to build or install the
# server: `make` never calls Node.

# make check-client: its tests, against the programs built here. Apart from make check, which needs no
# Node.js.
check-client: belfryd belfryctl
	BELFRYD='$(abs_top_builddir)/belfryd' BELFRYCTL='$(abs_top_builddir)/belfryctl' \
	    $(SHELL) $(abs_top_srcdir)/client/check
.PHONY: check-client

# make pages: the demo page and what belongs to it, by npm; the next make embeds them in belfryd.
# Without them it serves a plain page.
pages:
	$(SHELL) $(abs_top_srcdir)/client/make-pages
.PHONY: pages
