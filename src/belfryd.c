#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/options.h"
#include "shared/text.h"
#include "src/inherit.h"
#include "src/master.h"
#include "src/upgrade.h"

extern char **environ;

/* Standard descriptors that are closed would be taken by the first socket, and something would
 * print into it. */
static void fill_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO && fcntl(fd, F_SETFD, 0) == 0);
    if (fd > STDERR_FILENO)
        close(fd);
}

static void print_help(void)
{
    fputs("usage: belfryd [--config FILE] [--OPTION=VALUE ...]\n"
          "       belfryd --dev\n"
          "       belfryd --test-config | --help | --version\n"
          "\n"
          "The real-time gateway from Redis to browsers. Runs in the foreground.\n"
          "\n"
          "  --config=FILE   read this file instead of " BELFRY_SYSCONFDIR
          "/belfry/" OPTIONS_DEFAULT_FILE_NAME "\n"
          "  --test-config   check the configuration and exit 0 or 1\n"
          "  --dev           a first look: private Redis, random secret, tokens, demo page\n"
          "  --help          this text\n"
          "  --version       the version\n"
          "\n"
          "Every option can also stand in the file as \"name = value\" and in the environment as\n"
          "BELFRY_NAME=value. Command line comes before environment, environment before file.\n"
          "\n",
          stdout);
    options_print_help(stdout);
    fputs("\nSignals: HUP reload, USR2 upgrade, QUIT graceful stop, TERM stop, USR1 reopen log\n"
          "files.\n"
          "Manual: belfryd(8), belfry.conf(5).\n",
          stdout);
}

static void on_report(void *data, bool is_error, const char *line)
{
    struct text_buf *errors = data; /* NULL: nobody asks for them */
    fprintf(stderr, "belfryd: %s%s\n", is_error ? "" : "warning: ", line);
    if (errors && is_error)
        text_addf(errors, "%s%s", errors->len ? "\n" : "", line);
}

/* The master reads its arguments again on HUP, when those of the process have been scrubbed. */
static char **copy_arguments(int argc, char **argv)
{
    char **copy = calloc((size_t)argc + 1, sizeof(*copy));
    for (int i = 0; copy && i < argc; i++) {
        copy[i] = strdup(argv[i]);
        if (!copy[i]) {
            while (i--)
                free(copy[i]);
            free(copy);
            return NULL;
        }
    }
    return copy;
}

static void free_arguments(char **argv)
{
    for (char **p = argv; p && *p; p++) {
        explicit_bzero(*p, strlen(*p));
        free(*p);
    }
    free(argv);
}

static bool asks_for_test(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--test-config"))
            return true;
    return false;
}

static int run(const struct master_arguments *arguments, const struct options_command *command,
               struct options *opt)
{
    if (command->help || command->version) {
        if (command->help)
            print_help();
        else
            puts("belfryd (Belfry) " PACKAGE_VERSION);
        options_free(opt);
        return fflush(stdout) ? MASTER_EXIT_RUNTIME : MASTER_EXIT_OK;
    }
    if (command->rest.count) {
        fprintf(stderr, "belfryd: unexpected argument: %s (options begin with --)\n",
                command->rest.items[0]);
        options_free(opt);
        return MASTER_EXIT_USAGE;
    }
    if (!command->test_config)
        return master_run(arguments, opt);
    if (master_test(arguments, opt, on_report, NULL))
        return EXIT_FAILURE;
    puts("configuration is valid");
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct options_command command = {0};
    struct options *opt = NULL;
    fill_standard_descriptors();
    char **copy = copy_arguments(argc, argv);
    if (!copy || !argc) {
        fputs("belfryd: no memory\n", stderr);
        return MASTER_EXIT_RUNTIME;
    }
    char program[PATH_MAX] = "";
    struct text_buf errors = {0};
    int link = inherit_find_link();
    upgrade_program(argv[0], program, sizeof(program)); /* "" will not be executed */
    struct master_arguments arguments = {argc, copy, environ, program, link < 0 ? -1 : link};
    int code = MASTER_EXIT_USAGE;
    if (link == -EINVAL) {
        fputs("belfryd: " UPGRADE_ENVIRONMENT " is set, and names no master to replace\n", stderr);
    } else if (!options_load(argc, argv, environ, false, &command, on_report, &errors, &opt)) {
        options_scrub_argv(argc, argv);
        code = run(&arguments, &command, opt);
    } else if (asks_for_test(argc, argv)) {
        code = EXIT_FAILURE;
    } else {
        fputs("belfryd: not started; see belfryd --help and belfry.conf(5)\n", stderr);
        if (link >= 0)
            inherit_tell_failure(link, errors.data ? errors.data : "wrong configuration");
    }
    text_buf_free(&errors);
    options_command_free(&command);
    free_arguments(copy);
    return code;
}
