# client/: the front end's package. It is TypeScript, and none of it is needed to build or install the
# server: `make` never calls Node.

# make check-client: its tests, against the programs built here. Apart from make check, which needs no
# Node.js.
check-client: belfryd belfryctl
	BELFRYD='$(abs_top_builddir)/belfryd' BELFRYCTL='$(abs_top_builddir)/belfryctl' \
	    $(SHELL) $(abs_top_srcdir)/client/check
.PHONY: check-client
