# tests/analyze: cppcheck and clang-tidy. Apart from make check, for it takes minutes.
EXTRA_DIST += \
    .clang-tidy \
    tests/analyze/cppcheck.txt \
    tests/analyze/run

analyze_flags = -D_GNU_SOURCE -DBELFRY_SYSCONFDIR="$(sysconfdir)" $(CPPFLAGS) \
    $(HIREDIS_CFLAGS) $(CJSON_CFLAGS) $(JWT_CFLAGS) $(OPENSSL_CFLAGS) $(ZLIB_CFLAGS) \
    $(WSLAY_CFLAGS) $(EV_CFLAGS) $(LLHTTP_CFLAGS) $(LIBSYSTEMD_CFLAGS)
analyze:
	@srcdir='$(abs_top_srcdir)' ANALYZE_FLAGS='$(analyze_flags)' \
	    $(SHELL) $(top_srcdir)/tests/analyze/run
.PHONY: analyze
