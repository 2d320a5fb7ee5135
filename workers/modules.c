#include "config.h"

#include "workers/modules.h"

#include "shared/clock.h"
#include "shared/options.h"
#include "workers/acceptor.h"
#include "workers/admission.h"
#include "workers/canary.h"
#include "workers/conn.h"
#include "workers/deflate.h"
#include "workers/delivery.h"
#include "workers/guessers.h"
#include "workers/handover.h"
#include "workers/hub.h"
#include "workers/inquest.h"
#include "workers/marker.h"
#include "workers/pressure.h"
#include "workers/router.h"
#include "workers/session.h"
#include "workers/store.h"
#include "workers/subscriber.h"

const char *modules_make(struct worker *w)
{
    if (!(w->deflate = deflate_new((size_t)w->opt->compression_threshold)))
        return "compression";
    if (!(w->conns = conns_new(w)))
        return "connections";
    if (!(w->guessers = guessers_new(w->opt->auth_failure_rate)))
        return "token failures";
    if (!(w->pressure = pressure_new(w)))
        return "memory measurement";
    if (!(w->hub = hub_new()))
        return "hub";
    if (!(w->inquest = inquest_new(w)))
        return "inquest";
    if (!(w->store = store_new(w)))
        return "command link";
    if (!(w->admissions = admissions_new(w)))
        return "admissions";
    if (!(w->subscriber = subscriber_new(w)))
        return "subscriber link";
    if (!(w->canary = canary_new(w)))
        return "delivery probe";
    if (!(w->markers = markers_new(w)))
        return "markers";
    if (!(w->sessions = sessions_new(w)))
        return "sessions";
    if (!(w->handover = handover_new(w)))
        return "hand-over";
    if (!(w->router = router_new(w)))
        return "router";
    return NULL;
}

/* Answers that wait for Redis go before the links, connections before what they are members of. */
void modules_free(struct worker *w)
{
    acceptor_free(w->acceptor);
    router_free(w->router);
    handover_free(w->handover);
    w->handover = NULL;
    conns_free(w->conns);
    deflate_free(w->deflate);
    sessions_free(w->sessions);
    markers_free(w->markers);
    canary_free(w->canary);
    subscriber_free(w->subscriber);
    store_free(w->store);
    admissions_free(w->admissions);
    inquest_free(w->inquest);
    hub_free(w->hub);
    pressure_free(w->pressure);
    guessers_free(w->guessers);
}

bool modules_end_turn(struct worker *w, int64_t busy_us)
{
    counters_doing(DOING_REPLY, 0);
    bool is_left = session_work(w, clock_mono_us());
    counters_doing(DOING_MESSAGE, 0);
    if (clock_mono_us() >= busy_us)
        subscriber_look(w->subscriber);
    is_left = session_relay_broadcasts(w) || is_left;
    pressure_turn(w->pressure);
    conns_flush(w->conns, true); /* messages leave before handshakes take their time */
    delivery_end();
    if (conns_admit(w->conns))
        conns_flush(w->conns, true);
    return is_left;
}
