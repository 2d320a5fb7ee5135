#include "config.h"

#include "workers/auth.h"

#include "shared/counters.h"
#include "shared/log.h"
#include "workers/guessers.h"

bool auth_may_try(const struct conn *c)
{
    char id[CONN_ID_BYTES], address[IP_TEXT_BYTES];
    const struct worker *w = c->worker;
    /* A proxy's own address is everybody's. */
    if (!w->guessers || (c->is_trusted && !c->is_forwarded) ||
        guessers_may_try(w->guessers, &c->address, worker_now_ms(w)))
        return true;
    counters_inc(CTR_auth_rate_refusals);
    log_info("auth-not-tried", "conn", conn_id(c, id), "address", conn_address(c, address));
    return false;
}

void auth_failed(const struct conn *c, const char *why)
{
    char id[CONN_ID_BYTES], address[IP_TEXT_BYTES];
    const struct worker *w = c->worker;
    counters_inc(CTR_auth_failures);
    log_info("auth-refused", "conn", conn_id(c, id), "address", conn_address(c, address), "reason",
             why);
    if (w->guessers && !(c->is_trusted && !c->is_forwarded))
        guessers_note(w->guessers, &c->address, worker_now_ms(w));
}
