#include "config.h"

#include "src/keywatch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/segment.h"
#include "src/master_priv.h"

struct keywatch_stamp keywatch_look(const char *path)
{
    struct stat st;
    struct keywatch_stamp stamp;
    memset(&stamp, 0, sizeof(stamp)); /* padding, too: it is compared as a whole */
    if (stat(path, &st) < 0)
        return stamp;
    stamp.device = st.st_dev;
    stamp.inode = st.st_ino;
    stamp.bytes = (uint64_t)st.st_size;
    stamp.modified = st.st_mtim;
    stamp.changed = st.st_ctim;
    return stamp;
}

static void tell(void *data, const char *text)
{
    (void)data;
    log_notice("jwks-note", "note", text);
}

/* Takes the set for workers to come, and gives it to those that are there. */
static int take(struct master *m, struct generation *g, struct text_span text, char *why,
                size_t cap)
{
    int fd = segment_seal_text("belfry-jwks", text);
    if (fd < 0) {
        snprintf(why, cap, "it cannot be given to workers: %s", log_errno(fd));
        return fd;
    }
    int error = token_keys_take_jwks(g->token_keys, text, why, cap);
    if (error) {
        close(fd);
        return error;
    }
    if (g->jwks_fd >= 0)
        close(g->jwks_fd);
    g->jwks_fd = fd;
    supervisor_send_keys(m->supervisor, g);
    return 0;
}

static void look(struct master *m, struct generation *g)
{
    struct text_span text;
    char why[512];
    if (!g->token_keys || !*g->opt->jwt_jwks_file)
        return;
    struct keywatch_stamp now = keywatch_look(g->opt->jwt_jwks_file);
    if (!memcmp(&now, &g->jwks_stamp, sizeof(now)))
        return;
    g->jwks_stamp = now;
    int error = token_jwks_read(g->opt, &text, why, sizeof(why));
    if (!error) {
        error = take(m, g, text, why, sizeof(why));
        token_jwks_free(text);
    }
    if (error) {
        log_error("jwks-refused", "reason", why, "still", "serving with the old keys");
        return;
    }
    log_notice("jwks-loaded", "path", g->opt->jwt_jwks_file, "keys",
               LOG_INT(token_keys_jwks_count(g->token_keys)));
    token_keys_notes(g->token_keys, tell, NULL);
}

/* Workers that end serve the connections that could not be handed over, for as long as drain-time
 * is: their tokens are renewed, too. */
static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct master *m = timer->data;
    (void)loop, (void)events;
    if (m->state != INSTANCE_RUNNING && m->state != INSTANCE_DRAINING)
        return;
    if (m->current)
        look(m, m->current);
    for (struct generation *g = m->retired; g; g = g->older)
        look(m, g);
}

void keywatch_init(struct master *m)
{
    ev_timer_init(&m->keywatch.timer, on_tick, KEYWATCH_S, KEYWATCH_S);
    m->keywatch.timer.data = m;
    ev_timer_start(m->loop, &m->keywatch.timer);
}

void keywatch_fini(struct master *m)
{
    ev_timer_stop(m->loop, &m->keywatch.timer);
}
