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

# make check-tarball: what make dist makes needs no Node.js.
check-tarball: dist
	$(SHELL) $(srcdir)/client/check-tarball $(distdir).tar.gz
.PHONY: check-tarball

# --- the tarball -------------------------------------------------------------------------------
# The sources, and the pages as npm built them: who builds from a tarball needs no Node.js.
# One file per line, sorted.
EXTRA_DIST += \
    client/.npmrc \
    client/README.md \
    client/check \
    client/check-tarball \
    client/embed \
    client/install \
    client/local.mk \
    client/make-pages \
    client/package-lock.json \
    client/package.json \
    client/pages-for-dist \
    client/pages/admin/App.tsx \
    client/pages/admin/format.ts \
    client/pages/admin/index.html \
    client/pages/admin/main.tsx \
    client/pages/admin/parts/Explain.tsx \
    client/pages/admin/parts/Figures.tsx \
    client/pages/admin/parts/Plot.tsx \
    client/pages/admin/parts/Tables.tsx \
    client/pages/admin/screenshot.png \
    client/pages/admin/stats.ts \
    client/pages/admin/styles.css \
    client/pages/admin/usePolling.ts \
    client/pages/demo/App.tsx \
    client/pages/demo/belfry.ts \
    client/pages/demo/format.ts \
    client/pages/demo/index.html \
    client/pages/demo/main.tsx \
    client/pages/demo/parts/Budgets.tsx \
    client/pages/demo/parts/Connection.tsx \
    client/pages/demo/parts/Controls.tsx \
    client/pages/demo/parts/Figures.tsx \
    client/pages/demo/parts/Icon.tsx \
    client/pages/demo/parts/News.tsx \
    client/pages/demo/parts/Transactions.tsx \
    client/pages/demo/producer.ts \
    client/pages/demo/screenshot.png \
    client/pages/demo/styles.css \
    client/pages/demo/world.ts \
    client/pages/shared/Brand.tsx \
    client/pages/shared/Card.tsx \
    client/pages/shared/Theme.tsx \
    client/pages/shared/TokenForm.tsx \
    client/pages/shared/bell.svg \
    client/pages/shared/theme.css \
    client/pages/shared/token.ts \
    client/scripts/build-pages.mjs \
    client/scripts/generate-tables.mjs \
    client/src/core/acks.ts \
    client/src/core/backoff.ts \
    client/src/core/client.ts \
    client/src/core/connection.ts \
    client/src/core/emitter.ts \
    client/src/core/environment.ts \
    client/src/core/filter.ts \
    client/src/core/heartbeat.ts \
    client/src/core/index.ts \
    client/src/core/link.ts \
    client/src/core/position.ts \
    client/src/core/protocol.ts \
    client/src/core/recent.ts \
    client/src/core/shared-link.ts \
    client/src/core/state.ts \
    client/src/core/tables.ts \
    client/src/core/token.ts \
    client/src/react/hooks.ts \
    client/src/react/index.ts \
    client/src/store/index.ts \
    client/src/store/reducers.ts \
    client/src/store/selectors.ts \
    client/src/store/store.ts \
    client/src/store/types.ts \
    client/test/browser/admin.test.ts \
    client/test/browser/demo.test.ts \
    client/test/browser/tabs.test.ts \
    client/test/harness/belfry.ts \
    client/test/harness/browser.ts \
    client/test/harness/network.ts \
    client/test/harness/page-entry.ts \
    client/test/harness/page.ts \
    client/test/harness/process.ts \
    client/test/harness/redis.ts \
    client/test/server/resume.test.ts \
    client/test/unit/client.test.ts \
    client/test/unit/fake-socket.ts \
    client/test/unit/react.test.tsx \
    client/test/unit/store.test.ts \
    client/test/unit/tables.test.ts \
    client/tsconfig.build.json \
    client/tsconfig.json \
    client/vite.config.ts

dist-hook: pages-for-dist
pages-for-dist:
	$(SHELL) $(srcdir)/client/pages-for-dist $(srcdir) $(distdir)
.PHONY: pages-for-dist
