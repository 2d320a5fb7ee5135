/*
 * replay.c - main of a fuzz target where there is no libFuzzer: feeds it every file of its corpus,
 * whole and cut short, and says so in TAP. Files and folders may be given as arguments instead.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX_BYTES (1 << 20)

static unsigned inputs;
static const char *current; /* the file that is fed, for who finds the program dead */

static void feed(const uint8_t *bytes, size_t len)
{
    /* On the heap and no longer than it is: the sanitizers see what reads beyond. */
    uint8_t *copy = malloc(len ? len : 1);
    FUZZ_CHECK(copy);
    if (len)
        memcpy(copy, bytes, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
    inputs++;
}

static void replay_file(const char *path)
{
    static uint8_t bytes[INPUT_MAX_BYTES];
    FILE *f = fopen(path, "rb");
    if (!f && errno == ENOENT)
        return; /* a fuzzer that runs meanwhile has found a shorter one; no input at all is told */
    if (!f) {
        printf("Bail out! %s: %s\n", path, strerror(errno));
        exit(1);
    }
    size_t len = fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    current = path;
    feed(bytes, len);
    for (size_t cut = len / 2; cut > 0; cut /= 2)
        feed(bytes, len - cut);
}

static void replay(const char *path)
{
    struct stat is;
    struct dirent **names;
    if (stat(path, &is) != 0 || !S_ISDIR(is.st_mode)) {
        replay_file(path);
        return;
    }
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char file[4096];
        snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            replay(file);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

static void on_abort(int signal_number)
{
    (void)signal_number;
    if (current) { /* what dies in the middle of printf shall still be heard of */
        (void)!write(STDERR_FILENO, current, strlen(current));
        (void)!write(STDERR_FILENO, ": is what it was fed\n", 21);
    }
}

static const char *own_name(const char *program)
{
    const char *slash = strrchr(program, '/');
    const char *name = strstr(slash ? slash : program, "fuzz_"); /* libtool writes lt-fuzz_X */
    return name ? name + 5 : "";
}

int main(int argc, char **argv)
{
    const char *folder = getenv("FUZZ_CORPUS");
    char path[4096];
    signal(SIGABRT, on_abort);
    puts("1..1");
    fflush(stdout);
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    if (argc < 2) {
        snprintf(path, sizeof(path), "%s/%s", folder ? folder : "tests/fuzz/corpus",
                 own_name(argv[0]));
        replay(path);
    }
    printf("%s 1 - %u inputs\n", inputs > 1 ? "ok" : "not ok", inputs);
    return inputs > 1 ? 0 : 1;
}
