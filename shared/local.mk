# shared/: what the programs and the workers stand on, and libbelfry.
# One file per line, sorted.

noinst_LTLIBRARIES += shared/libshared.la

shared_libshared_la_SOURCES = \
    shared/address.c \
    shared/address.h \
    shared/algorithms.def \
    shared/base64url.c \
    shared/base64url.h \
    shared/chance.c \
    shared/chance.h \
    shared/clock.c \
    shared/clock.h \
    shared/closes.c \
    shared/closes.def \
    shared/closes.h \
    shared/control.def \
    shared/counters.c \
    shared/counters.def \
    shared/counters.h \
    shared/doing.def \
    shared/emit.c \
    shared/emit.h \
    shared/emit_script.c \
    shared/events.c \
    shared/events.def \
    shared/events.h \
    shared/explanation.c \
    shared/explanation.h \
    shared/inquiry.c \
    shared/inquiry.h \
    shared/ip.c \
    shared/ip.h \
    shared/ipc.c \
    shared/ipc.h \
    shared/json.c \
    shared/json.h \
    shared/jwks.c \
    shared/keys.c \
    shared/keys.h \
    shared/log.c \
    shared/log.h \
    shared/message.c \
    shared/message.h \
    shared/options.def \
    shared/options.h \
    shared/options_check.c \
    shared/options_load.c \
    shared/options_priv.h \
    shared/options_table.c \
    shared/options_value.c \
    shared/pack.c \
    shared/pack.h \
    shared/publish.c \
    shared/redisurl.c \
    shared/redisurl.h \
    shared/segment.c \
    shared/segment.h \
    shared/stored.c \
    shared/stored.h \
    shared/text.c \
    shared/text.h \
    shared/tickets.c \
    shared/tickets.h \
    shared/token.c \
    shared/token.h \
    shared/token_key.c \
    shared/token_key.h \
    shared/token_keys.c \
    shared/token_known.c \
    shared/token_known.h \
    shared/token_mint.c \
    shared/token_priv.h \
    shared/trace.c \
    shared/trace.def \
    shared/trace.h \
    shared/usertable.c \
    shared/usertable.h \
    shared/uuid7.c \
    shared/uuid7.h \
    shared/verdict.c \
    shared/verdict.h

# Linked into programs only, so one kind of object is enough: position-independent for
# executables (-fPIE), which unlike -fPIC lets the compiler inline across the library's functions.
shared_libshared_la_LIBTOOLFLAGS = --tag=disable-shared
shared_libshared_la_LIBADD = \
    $(HIREDIS_SSL_LIBS) \
    $(HIREDIS_LIBS) \
    $(CJSON_LIBS) \
    $(JWT_LIBS) \
    $(OPENSSL_LIBS)

# --- libbelfry: for backends --------------------------------------------------------------------
# Built from the same sources once more, as shared-library objects. Only belfry_* is visible.
lib_LTLIBRARIES += libbelfry.la

libbelfry_la_SOURCES = \
    shared/chance.c \
    shared/clock.c \
    shared/emit.c \
    shared/emit_script.c \
    shared/events.c \
    shared/json.c \
    shared/keys.c \
    shared/message.c \
    shared/publish.c \
    shared/redisurl.c \
    shared/text.c \
    shared/uuid7.c

libbelfry_la_CPPFLAGS = $(AM_CPPFLAGS) -DBELFRY_LIBRARY
libbelfry_la_LDFLAGS = $(AM_LDFLAGS) $(DEFS_LDFLAGS) -no-undefined \
    -export-symbols-regex '^belfry_' -version-info 0:0:0
libbelfry_la_LIBADD = $(HIREDIS_SSL_LIBS) $(HIREDIS_LIBS) $(CJSON_LIBS) $(REDISS_OPENSSL_LIBS)

include_HEADERS += \
    shared/belfry.h

pkgconfig_DATA += \
    src/belfry.pc
