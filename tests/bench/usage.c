/*
 * usage.c - what the server's processes and the kernel use, from /proc.
 *
 * CPU time is schedstat's first number (ns on a processor) of every task of the given processes and
 * of all their descendants: user and system time together, exact where utime and stime are counted
 * in ticks. What the kernel does for a socket in softirq context on the sender's processor is in
 * it; what ksoftirqd does is not.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define PROCESSES_MAX 4096

/* The kernel's caches that grow with a connection. */
static const char *const slab_caches[] = {"TCP",       "TCPv6",     "sock_inode_cache",
                                          "filp",      "dentry",    "eventpoll_epi",
                                          "eventpoll_pwq", "ep_head", "request_sock_TCP",
                                          "tw_sock_TCP", "tcp_bind_bucket", "tcp_bind2_bucket"};

struct process {
    pid_t pid, parent;
    bool is_ours;
};

static bool read_text(const char *path, char *out, size_t cap)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t len = fread(out, 1, cap - 1, file);
    fclose(file);
    out[len] = '\0';
    return len > 0;
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!read_text(path, text, sizeof(text)))
        return 0;
    /* The name stands in brackets and may hold anything. */
    const char *after = strrchr(text, ')');
    int parent = 0;
    if (!after || sscanf(after + 1, " %*c %d", &parent) != 1)
        return 0;
    return parent;
}

static size_t list_processes(struct process *out)
{
    size_t count = 0;
    DIR *dir = opendir("/proc");
    if (!dir)
        return 0;
    for (struct dirent *e; (e = readdir(dir)) && count < PROCESSES_MAX;) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0)
            out[count++] = (struct process){.pid = pid, .parent = parent_of(pid)};
    }
    closedir(dir);
    return count;
}

/* Marks the roots and, until nothing changes, the children of what is marked. */
static size_t mark_ours(struct process *all, size_t count, const pid_t *roots, size_t root_count)
{
    size_t marked = 0;
    for (bool is_changed = true; is_changed;) {
        is_changed = false;
        for (size_t i = 0; i < count; i++) {
            bool is_ours = false;
            for (size_t j = 0; j < root_count; j++)
                is_ours |= all[i].pid == roots[j];
            for (size_t j = 0; j < count && !is_ours; j++)
                is_ours = all[j].is_ours && all[j].pid == all[i].parent;
            if (is_ours && !all[i].is_ours) {
                all[i].is_ours = is_changed = true;
                marked++;
            }
        }
    }
    return marked;
}

static double cpu_of(pid_t pid)
{
    char path[300], text[128];
    unsigned long long ns, sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return 0;
    for (struct dirent *e; (e = readdir(dir));) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int)pid, e->d_name);
        if (e->d_name[0] != '.' && read_text(path, text, sizeof(text)) &&
            sscanf(text, "%llu", &ns) == 1)
            sum += ns;
    }
    closedir(dir);
    return (double)sum / 1e9;
}

static uint64_t pss_of(pid_t pid)
{
    char path[64], text[4096];
    unsigned long long kilobytes = 0;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    if (!read_text(path, text, sizeof(text)))
        return 0;
    const char *line = strstr(text, "\nPss:");
    if (line)
        sscanf(line, "\nPss: %llu", &kilobytes);
    return kilobytes * 1024;
}

static uint64_t read_slab(void)
{
    char line[512], name[64];
    unsigned long long objects, size;
    uint64_t sum = 0;
    FILE *file = fopen("/proc/slabinfo", "re"); /* for root only */
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        /* Objects in use: free ones in the slabs belong to nobody yet. */
        if (sscanf(line, "%63s %llu %*u %llu", name, &objects, &size) != 3)
            continue;
        for (size_t i = 0; i < sizeof(slab_caches) / sizeof(*slab_caches); i++)
            if (!strcmp(name, slab_caches[i]))
                sum += objects * size;
    }
    fclose(file);
    return sum;
}

static uint64_t read_tcp_buffers(void)
{
    char text[2048];
    unsigned long long pages = 0;
    if (!read_text("/proc/net/sockstat", text, sizeof(text)))
        return 0;
    const char *line = strstr(text, "\nTCP:");
    const char *mem = line ? strstr(line, " mem ") : NULL;
    if (mem)
        sscanf(mem, " mem %llu", &pages);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int read_processes(const pid_t *roots, size_t count, bool with_memory, struct usage *out)
{
    *out = (struct usage){0};
    struct process *all = calloc(PROCESSES_MAX, sizeof(*all));
    if (!all)
        return -ENOMEM;
    size_t total = list_processes(all);
    size_t marked = mark_ours(all, total, roots, count);
    for (size_t i = 0; i < total; i++) {
        if (!all[i].is_ours)
            continue;
        out->cpu_s += cpu_of(all[i].pid);
        if (with_memory)
            out->pss_bytes += pss_of(all[i].pid);
    }
    free(all);
    out->processes = (uint32_t)marked;
    out->at_ns = bench_now_ns();
    return marked < count ? -ESRCH : 0;
}

int usage_read_cpu(const pid_t *roots, size_t count, struct usage *out)
{
    return read_processes(roots, count, false, out);
}

int usage_read(const pid_t *roots, size_t count, struct usage *out)
{
    int result = read_processes(roots, count, true, out);
    out->slab_bytes = read_slab();
    out->tcp_bytes = read_tcp_buffers();
    return result;
}
