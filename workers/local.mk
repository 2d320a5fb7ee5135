# workers/: one worker process.
# One file per line, sorted.

noinst_LTLIBRARIES += workers/libworkers.la

workers_libworkers_la_SOURCES = \
    workers/acceptor.c \
    workers/acceptor.h \
    workers/api.h \
    workers/api_demo.c \
    workers/api_health.c \
    workers/api_messages.c \
    workers/api_metrics.c \
    workers/api_stats.c \
    workers/canary.c \
    workers/canary.h \
    workers/commands.c \
    workers/commands.h \
    workers/conn.c \
    workers/conn.h \
    workers/conn_handover.c \
    workers/conn_http.c \
    workers/conn_internal.h \
    workers/conn_io.c \
    workers/conn_tls.c \
    workers/conn_ws.c \
    workers/context.h \
    workers/deflate.c \
    workers/deflate.h \
    workers/device.c \
    workers/device.h \
    workers/extensions.c \
    workers/extensions.h \
    workers/fate.c \
    workers/fate.h \
    workers/filter.c \
    workers/filter.h \
    workers/frame.c \
    workers/frame.h \
    workers/fullsync.c \
    workers/fullsync.h \
    workers/handover.c \
    workers/handover.h \
    workers/handover_giver.c \
    workers/handover_link.c \
    workers/handover_link.h \
    workers/handover_parts.h \
    workers/handover_state.c \
    workers/handover_state.h \
    workers/handover_taker.c \
    workers/handshake.c \
    workers/handshake.h \
    workers/held.c \
    workers/held.h \
    workers/http.c \
    workers/http.h \
    workers/hub.c \
    workers/hub.h \
    workers/inquest.c \
    workers/inquest.h \
    workers/marker.c \
    workers/marker.h \
    workers/merge.c \
    workers/merge.h \
    workers/outq.c \
    workers/outq.h \
    workers/push.c \
    workers/push.h \
    workers/recent.c \
    workers/recent.h \
    workers/redislink.c \
    workers/redislink.h \
    workers/resolve.c \
    workers/resolve.h \
    workers/roster.c \
    workers/roster.h \
    workers/router.c \
    workers/router.h \
    workers/sandbox.c \
    workers/sandbox.def \
    workers/sandbox.h \
    workers/session.c \
    workers/session.h \
    workers/session_handover.c \
    workers/session_handover.h \
    workers/session_kept.c \
    workers/session_lag.c \
    workers/session_left_out.c \
    workers/session_list.c \
    workers/session_broadcast.c \
    workers/session_live.c \
    workers/session_parts.h \
    workers/session_read.c \
    workers/session_refresh.c \
    workers/store.c \
    workers/store.h \
    workers/subscriber.c \
    workers/subscriber.h \
    workers/tlsio.c \
    workers/tlsio.h \
    workers/wheel.c \
    workers/wheel.h \
    workers/worker.c \
    workers/worker.h \
    workers/wsock.c \
    workers/wsock.h

workers_libworkers_la_LIBTOOLFLAGS = --tag=disable-shared
workers_libworkers_la_LIBADD = \
    $(WSLAY_LIBS) \
    $(EV_LIBS) \
    $(SECCOMP_LIBS) \
    $(ZLIB_LIBS)
