/*
 * fuzz_upgrade.c - what a new master takes over from the old one (src/inherit.c, listeners.c,
 * shared/ipc.c, segment.c, counters.c, usertable.c, trace.c). The input is messages as they go over
 * the link: type, what descriptor goes along, and a piece, two bytes of length and the body.
 *
 * Holds: whatever comes, it is received or refused in time; the instance's names are text; shared
 * memory is taken only when its size fits what it says; no descriptor is left open.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/ipc.h"
#include "shared/log.h"
#include "src/master_priv.h"

#define MESSAGES_MAX 8 /* so many fit into the queue, and SENT */

enum along { NOTHING, SOCKET, SEGMENT, LOOSE_MEMORY, ALONG };

/* Memory of that size that begins with these bytes, sealed as a segment is. */
static int memory(struct text_span bytes, size_t size, bool is_sealed)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    FUZZ_CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    if (bytes.len)
        FUZZ_CHECK(pwrite(fd, bytes.ptr, bytes.len < size ? bytes.len : size, 0) >= 0);
    if (is_sealed)
        FUZZ_CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
    return fd;
}

static int descriptor(enum along what, struct fuzz_input *in)
{
    switch (what) {
    case SOCKET:
        return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    case SEGMENT:
    case LOOSE_MEMORY: {
        size_t pages = fuzz_u8(in);
        struct text_span bytes = fuzz_piece(in);
        return memory(bytes, pages * 4096 + fuzz_u8(in) % 2, what == SEGMENT);
    }
    default:
        return -1;
    }
}

static void send_all(int link, struct fuzz_input *in)
{
    for (int i = 0; in->left && i < MESSAGES_MAX; i++) {
        uint32_t type = fuzz_u8(in) % (UPGRADE_TYPES + 2);
        int fd = descriptor((enum along)(fuzz_u8(in) % ALONG), in);
        struct text_span body = fuzz_piece(in);
        ipc_send(link, type, body.ptr, body.len, fd);
        if (fd >= 0)
            close(fd);
    }
    ipc_send(link, UPGRADE_SENT, NULL, 0, -1);
}

/* All segments as the new master takes them; the layout's number is a hash of this program, which
 * no input could guess. False: they were not taken. */
static bool map_all(struct master *m)
{
    struct options opt = {0};
    struct generation g = {.opt = &opt, .workers = 1};
    struct inherit *in = &m->inherit;
    in->start.layout = upgrade_layout();
    in->start.trace_size = trace_rounded(in->start.trace_size % TRACE_MAX_RECORDS);
    opt.trace_size = in->start.trace_size;
    m->current = &g;
    bool is_taken = inherit_map(m);
    m->current = NULL;
    if (!is_taken)
        return false;
    FUZZ_CHECK(m->counters.head->slots > 0 && m->counters.head->slots <= COUNTERS_MAX_SLOTS);
    usertable_users(m->users);
    usertable_users(m->addresses);
    trace_destroy(&m->trace);
    counters_destroy(&m->counters);
    usertable_free(m->users);
    usertable_free(m->addresses);
    return true;
}

static void take_control(struct master *m)
{
    static const struct control_handlers handlers; /* nobody asks anything */
    const char *path = m->inherit.control.path;
    bool has_socket = m->inherit.control_fd >= 0;
    FUZZ_CHECK(!inherit_control(m, "/another", &handlers) || !strcmp(path, "/another"));
    FUZZ_CHECK(m->control || inherit_control(m, path, &handlers) == has_socket);
    control_leave(m->control, true);
    control_free(m->control);
    m->control = NULL;
}

/* Each by itself, whatever became of the others. */
static void adopt(struct master *m)
{
    struct inherit *in = &m->inherit;
    struct counters c;
    struct trace t;
    struct usertable *u;
    if (in->segments[SEGMENT_COUNTERS] >= 0 &&
        counters_adopt(&c, in->segments[SEGMENT_COUNTERS]) == 0) {
        in->segments[SEGMENT_COUNTERS] = -1;
        FUZZ_CHECK(c.head->slots > 0 && c.head->slots <= COUNTERS_MAX_SLOTS);
        FUZZ_CHECK(c.bytes >= (size_t)COUNTERS_SLOT_BYTES * (c.head->slots + 1));
        if (in->segments[SEGMENT_TRACE] >= 0 &&
            trace_adopt(&t, c.head->slots, in->start.trace_size,
                        in->segments[SEGMENT_TRACE]) == 0) {
            in->segments[SEGMENT_TRACE] = -1;
            trace_destroy(&t);
        }
        counters_destroy(&c);
    }
    if (in->segments[SEGMENT_USERS] >= 0 &&
        usertable_adopt(in->segments[SEGMENT_USERS], &u) == 0) {
        in->segments[SEGMENT_USERS] = -1;
        usertable_users(u);
        usertable_free(u);
    }
}

static int open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    FUZZ_CHECK(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void check_totals(struct text_span lines)
{
    static struct counters c;
    if (!c.head)
        FUZZ_CHECK(counters_create(&c, 2) == 0);
    memset(c.head->earlier, 0, sizeof(c.head->earlier));
    char *copy = fuzz_copy(lines);
    counters_take_earlier(&c, (struct text_span){copy, lines.len});
    free(copy);
}

static void check_taken(const struct master *m)
{
    FUZZ_CHECK(memchr(m->instance_id, 0, sizeof(m->instance_id)));
    FUZZ_CHECK(memchr(m->inherit.start.release, 0, sizeof(m->inherit.start.release)));
    struct listener_record r;
    for (size_t i = 0; listeners_record(m->source.inherited, i, &r) >= 0; i++)
        FUZZ_CHECK(memchr(r.real, 0, sizeof(r.real)) && memchr(r.asked, 0, sizeof(r.asked)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_begun;
    struct fuzz_input in = {data, size};
    char why[200] = "";
    int pair[2];
    if (!is_begun)
        FUZZ_CHECK(log_open("file:/dev/null", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT) == 0);
    is_begun = true;
    check_totals((struct text_span){(const char *)data, size});
    int before = open_descriptors();
    struct master *m = calloc(1, sizeof(*m));
    FUZZ_CHECK(m && ipc_pair(pair) == 0);
    inherit_init(m);
    m->loop = ev_loop_new(EVFLAG_NOENV);
    FUZZ_CHECK(m->loop);
    send_all(pair[1], &in);
    close(pair[1]); /* ends what was never SENT */
    if (inherit_receive(m, pair[0], why, sizeof(why)) == 0) {
        check_taken(m);
        take_control(m);
        if (m->inherit.segments[SEGMENT_ADDRESSES] < 0 || !map_all(m))
            adopt(m);
    } else {
        FUZZ_CHECK(*why);
    }
    inherit_fini(m);
    listeners_free(m->source.inherited);
    text_buf_free(&m->last_message);
    ev_loop_destroy(m->loop);
    free(m);
    FUZZ_CHECK(open_descriptors() == before);
    return 0;
}
