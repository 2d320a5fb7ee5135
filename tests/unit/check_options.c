#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/options.h"
#include "shared/options_priv.h"
#include "tests/unit/options_fixture.h"

static void assert_format(enum option_id id, const char *expected)
{
    struct text_buf b = {0};
    options_format(o, id, &b);
    ck_assert_str_eq(b.data ? b.data : "", expected);
    text_buf_free(&b);
}

/* ---- the table ---- */

START_TEST(every_default_is_valid_and_written_as_in_the_table)
{
    ck_assert_int_eq(load(), 0);
    assert_text(&warnings, "");
    for (int id = 0; id < OPTIONS; id++) {
        ck_assert_int_eq(o->source[id], SOURCE_DEFAULT);
        assert_format((enum option_id)id, options_table[id].def);
    }
    ck_assert_uint_eq(o->listen.count, 1);
    ck_assert_str_eq(o->listen.items[0], "127.0.0.1:8000");
    ck_assert_int_eq(o->workers, 0);
    ck_assert_int_eq(o->ping_interval, 25000);
    ck_assert_int_eq(o->max_header_size, 16384);
    ck_assert_int_eq(o->history_ttl, INT64_C(604800000));
    ck_assert_int_eq(o->max_connections, 0);
    ck_assert_str_eq(o->user, "");
    ck_assert_int_eq(o->jwt_require_exp, CHOICE_YES);
}
END_TEST

START_TEST(every_row_has_a_name_a_known_check_a_range_and_help)
{
    for (int id = 0; id < OPTIONS; id++) {
        const struct option_row *row = &options_table[id];
        ck_assert(!strchr(row->name, '_'));
        ck_assert_int_eq(options_find(row->name), id);
        ck_assert(row->section[0] >= 'a' && row->section[0] <= 'z');
        ck_assert(row->help[0] && row->help[strlen(row->help) - 1] == '.');
        if (row->kind == OPTION_STRING || row->kind == OPTION_LIST)
            ck_assert_msg(options_is_check(row->spec), "%s: %s", row->name, row->spec);
        else
            ck_assert_msg(strstr(row->spec, row->kind == OPTION_CHOICE ? "|" : ".."), "%s",
                          row->name);
    }
    ck_assert_str_eq(options_table[OPT_max_connections_per_address].name,
                     "max-connections-per-address");
}
END_TEST

static int64_t choice(enum option_id id, const char *word)
{
    char argument[80];
    snprintf(argument, sizeof(argument), "--%s=%s", options_table[id].name, word);
    ck_assert_int_eq(load(argument), 0);
    return *options_field(o, id).number;
}

START_TEST(choices_are_numbered_as_the_header_says)
{
    ck_assert_int_eq(choice(OPT_compression, "off"), CHOICE_OFF);
    ck_assert_int_eq(choice(OPT_compression, "on"), CHOICE_ON);
    ck_assert_int_eq(choice(OPT_echo, "on"), CHOICE_ON);
    ck_assert_int_eq(choice(OPT_dev, "no"), CHOICE_NO);
    ck_assert_int_eq(choice(OPT_dev, "yes"), CHOICE_YES);
    ck_assert_int_eq(choice(OPT_jwt_require_exp, "no"), CHOICE_NO);
    ck_assert_int_eq(choice(OPT_restart_close, "frame"), RESTART_CLOSE_FRAME);
    ck_assert_int_eq(choice(OPT_restart_close, "drop"), RESTART_CLOSE_DROP);
    ck_assert_int_eq(choice(OPT_event_case, "upper"), EVENT_CASE_UPPER);
    ck_assert_int_eq(choice(OPT_event_case, "lower"), EVENT_CASE_LOWER);
    ck_assert_int_eq(choice(OPT_auth_failure, "close"), AUTH_FAILURE_CLOSE);
    ck_assert_int_eq(choice(OPT_auth_failure, "http"), AUTH_FAILURE_HTTP);
    ck_assert_int_eq(choice(OPT_slow_consumer, "conflate"), SLOW_CONSUMER_CONFLATE);
    ck_assert_int_eq(choice(OPT_slow_consumer, "disconnect"), SLOW_CONSUMER_DISCONNECT);
    ck_assert_int_eq(choice(OPT_profile, "standard"), PROFILE_STANDARD);
    ck_assert_int_eq(choice(OPT_profile, "finance-tracker"), PROFILE_FINANCE_TRACKER);
    ck_assert_int_eq(choice(OPT_log_level, "error"), LOG_LEVEL_ERROR);
    ck_assert_int_eq(choice(OPT_log_level, "debug"), LOG_LEVEL_DEBUG);
    ck_assert_int_eq(choice(OPT_log_format, "text"), LOG_FORMAT_TEXT);
    ck_assert_int_eq(choice(OPT_log_format, "json"), LOG_FORMAT_JSON);
}
END_TEST

/* ---- sources ---- */

START_TEST(one_name_has_four_spellings)
{
    char *environment[] = {(char[]){"PATH=/bin"}, (char[]){"BELFRY_PONG_TIMEOUT=3s"}, NULL};
    write_file("history-size = 7\n");
    ck_assert_int_eq(load_words(environment, false, "--workers=2", "--replay-limit", "5", NULL), 0);
    ck_assert_int_eq(o->workers, 2);
    ck_assert_int_eq(o->replay_limit, 5);
    ck_assert_int_eq(o->pong_timeout, 3000);
    ck_assert_int_eq(o->history_size, 7);
    ck_assert_int_eq(o->source[OPT_workers], SOURCE_COMMAND_LINE);
    ck_assert_int_eq(o->source[OPT_pong_timeout], SOURCE_ENVIRONMENT);
    ck_assert_int_eq(o->source[OPT_history_size], SOURCE_FILE);
    ck_assert_int_eq(o->line[OPT_history_size], 1);
    ck_assert_str_eq(o->file, file);
}
END_TEST

START_TEST(the_stronger_source_wins)
{
    char *environment[] = {(char[]){"BELFRY_WORKERS=3"}, (char[]){"BELFRY_HISTORY_SIZE=3"}, NULL};
    write_file("workers = 2\nhistory-size = 2\nreplay-limit = 2\nevent-case = upper\n"
               "profile = finance-tracker\n");
    ck_assert_int_eq(load_words(environment, false, "--workers=4", NULL), 0);
    ck_assert_int_eq(o->workers, 4);
    ck_assert_int_eq(o->history_size, 3);
    ck_assert_int_eq(o->replay_limit, 2);
    ck_assert_int_eq(o->event_case, EVENT_CASE_UPPER); /* file over profile */
    ck_assert_int_eq(o->restart_close, RESTART_CLOSE_DROP); /* profile over default */
    ck_assert_int_eq(o->source[OPT_restart_close], SOURCE_PROFILE);
}
END_TEST

START_TEST(repeated_lists_add_up_within_a_source_and_replace_weaker_ones)
{
    char *environment[] = {(char[]){"BELFRY_ADMIN_VALUES=env"}, NULL};
    write_file("listen = 127.0.0.1:1, [::1]:1\nlisten = unix:/x\nadmin-values = file1,file2\n");
    ck_assert_int_eq(load_words(environment, false, NULL), 0);
    assert_format(OPT_listen, "127.0.0.1:1,[::1]:1,unix:/x");
    assert_format(OPT_admin_values, "env");
    ck_assert_int_eq(load("--listen=*:7", "--listen", "*:8"), 0);
    assert_format(OPT_listen, "*:7,*:8");
    ck_assert_int_eq(load("--listen=*:7", "--listen=nonsense"), -EINVAL);
}
END_TEST

START_TEST(a_weaker_sources_bad_value_is_still_an_error)
{
    write_file("workers = many\n");
    ck_assert_int_eq(load("--workers=2"), -EINVAL);
    assert_holds(&errors, "b.conf:1: workers: ");
}
END_TEST

START_TEST(the_profile_and_dev_change_defaults_only)
{
    ck_assert_int_eq(load("--profile=finance-tracker"), 0);
    ck_assert_int_eq(o->event_case, EVENT_CASE_LOWER);
    ck_assert_int_eq(o->restart_close, RESTART_CLOSE_DROP);
    ck_assert_int_eq(load("--dev"), 0);
    ck_assert_str_eq(o->redis_url, "embedded");
    assert_format(OPT_listen, "127.0.0.1:8000");
    ck_assert_int_eq(o->source[OPT_redis_url], SOURCE_PROFILE);
    ck_assert_int_eq(load("--dev", "--redis-url=redis://h", "--listen=127.0.0.1:0"), 0);
    ck_assert_str_eq(o->redis_url, "redis://h");
    assert_format(OPT_listen, "127.0.0.1:0");
    ck_assert_int_eq(load("--no-dev"), 0);
    ck_assert_int_eq(o->dev, CHOICE_NO);
    ck_assert_str_eq(o->redis_url, "redis://127.0.0.1:6379/0");
}
END_TEST

/* ---- command line ---- */

START_TEST(switches_are_written_in_many_ways)
{
    static const char *const on[] = {"--echo", "--echo=on", "--echo=yes", "--echo=true",
                                     "--echo=1", "--echo=ON"};
    static const char *const off[] = {"--no-echo", "--echo=off", "--echo=no", "--echo=false",
                                      "--echo=0"};
    for (size_t i = 0; i < sizeof(on) / sizeof(*on); i++) {
        ck_assert_int_eq(load(on[i]), 0);
        ck_assert_int_eq(o->echo, CHOICE_ON);
    }
    for (size_t i = 0; i < sizeof(off) / sizeof(*off); i++) {
        ck_assert_int_eq(load("--echo", off[i]), 0);
        ck_assert_int_eq(o->echo, CHOICE_OFF);
    }
    ck_assert_int_eq(load("--echo", "off"), 0); /* a switch takes no next word */
    ck_assert_int_eq(o->echo, CHOICE_ON);
    ck_assert_uint_eq(command.rest.count, 1);
    ck_assert_int_eq(load("--no-echo=yes"), -EINVAL);
    ck_assert_int_eq(load("--no-workers"), -EINVAL);
    ck_assert_int_eq(load("--echo=maybe"), -EINVAL);
    assert_holds(&errors, "--echo: \"maybe\" is none of off, on");
}
END_TEST

START_TEST(words_that_are_no_options_are_kept_in_order)
{
    ck_assert_int_eq(load("one", "--workers", "2", "-", "--", "--echo", "two"), 0);
    ck_assert_uint_eq(command.rest.count, 4);
    ck_assert_str_eq(command.rest.items[0], "one");
    ck_assert_str_eq(command.rest.items[1], "-");
    ck_assert_str_eq(command.rest.items[2], "--echo");
    ck_assert_str_eq(command.rest.items[3], "two");
    ck_assert_int_eq(o->echo, CHOICE_OFF);
}
END_TEST

START_TEST(a_subcommand_ends_the_options_when_told_so)
{
    ck_assert_int_eq(load_words(NULL, true, "--workers=2", "emit", "--no-store", "--echo", "--",
                                "--help", NULL),
                     0);
    ck_assert_uint_eq(command.rest.count, 5);
    ck_assert_str_eq(command.rest.items[0], "emit");
    ck_assert_str_eq(command.rest.items[1], "--no-store");
    ck_assert_str_eq(command.rest.items[3], "--");
    ck_assert(!command.help);
    ck_assert_int_eq(o->echo, CHOICE_OFF);
    ck_assert_int_eq(o->workers, 2);
}
END_TEST

START_TEST(commands_are_told_apart_from_options)
{
    ck_assert_int_eq(load("--test-config"), 0);
    ck_assert(command.test_config && !command.help && !command.version);
    write_file("nonsense\n");
    ck_assert_int_eq(load("--help"), 0); /* a broken file keeps nobody from help */
    ck_assert(command.help);
    ck_assert_int_eq(load("-h"), 0);
    ck_assert(command.help);
    ck_assert_int_eq(load("--version"), 0);
    ck_assert(command.version);
    ck_assert_int_eq(load("--help=x"), -EINVAL);
    ck_assert_int_eq(load(), -EINVAL);
}
END_TEST

START_TEST(a_missing_value_is_an_error_that_eats_no_option)
{
    ck_assert_int_eq(load("--workers"), -EINVAL);
    assert_text(&errors, "--workers: a value is needed (--workers=VALUE)\n");
    ck_assert_int_eq(load("--workers", "--log-level=nothing"), -EINVAL);
    assert_holds(&errors, "--workers: a value is needed");
    assert_holds(&errors, "--log-level: ");
    ck_assert_int_eq(load("--config"), -EINVAL);
    ck_assert_int_eq(load("--config="), -EINVAL);
    ck_assert_int_eq(load("--user="), 0);
}
END_TEST

START_TEST(unknown_options_name_the_nearest_one)
{
    ck_assert_int_eq(load("--redis-ulr=redis://:sesame@h"), -EINVAL);
    assert_text(&errors, "unknown option --redis-ulr, did you mean redis-url?\n");
    ck_assert_int_eq(load("--something-else-entirely"), -EINVAL);
    assert_text(&errors, "unknown option --something-else-entirely\n");
    ck_assert_int_eq(load("-x"), -EINVAL);
    assert_text(&errors, "unknown option -x (options are written --NAME)\n");
    ck_assert_int_eq(load("--a\nb"), -EINVAL);
    assert_holds(&errors, "--a\\x0ab");
    ck_assert_int_eq(load("--"), 0);
    char longest[3000] = "--";
    memset(longest + 2, 'a', sizeof(longest) - 3);
    longest[sizeof(longest) - 1] = '\0';
    ck_assert_int_eq(load(longest), -EINVAL);
    ck_assert_str_eq(options_nearest("pinginterval"), "ping-interval");
    ck_assert_str_eq(options_nearest("worker"), "workers");
    ck_assert_str_eq(options_nearest("jwt-secret"), "jwt-secret-file");
    ck_assert_str_eq(options_nearest("max-conn"), "max-connections");
    ck_assert_str_eq(options_nearest("REDIS_URL"), "redis-url");
    ck_assert_ptr_null(options_nearest("zz"));
    ck_assert_ptr_null(options_nearest("zzzzzzzz"));
    ck_assert_ptr_null(options_nearest(""));
}
END_TEST

/* ---- environment ---- */

START_TEST(unknown_names_in_the_environment_are_warnings)
{
    char *environment[] = {(char[]){"BELFRY_PING_INTERVALL=1s"}, (char[]){"BELFRY_="},
                           (char[]){"BELFRY_workers=1"}, (char[]){"BELFRY_NOVALUE"}, NULL};
    ck_assert_int_eq(load_words(environment, false, NULL), 0);
    assert_text(&warnings, "environment: unknown option BELFRY_PING_INTERVALL, did you mean "
                           "ping-interval?\n"
                           "environment: unknown option BELFRY_\n"
                           "environment: unknown option BELFRY_workers\n");
    ck_assert_int_eq(o->ping_interval, 25000);
}
END_TEST

START_TEST(bad_values_in_the_environment_are_errors)
{
    char *environment[] = {(char[]){"BELFRY_WORKERS=99"}, NULL};
    ck_assert_int_eq(load_words(environment, false, NULL), -EINVAL);
    assert_text(&errors, "BELFRY_WORKERS: \"99\" is out of range 1..64, or auto\n");
}
END_TEST

START_TEST(the_file_may_be_named_by_the_environment)
{
    char variable[100];
    char *environment[] = {variable, NULL};
    char *argv[] = {(char[]){"belfryd"}, (char[]){"--config=/dev/null"}, NULL};
    write_file("workers = 5\n");
    snprintf(variable, sizeof(variable), "BELFRY_CONFIG=%s", file);
    ck_assert_int_eq(options_load(1, argv, environment, false, NULL, report, folder, &o), 0);
    ck_assert_int_eq(o->workers, 5);
    forget();
    ck_assert_int_eq(options_load(2, argv, environment, false, NULL, report, folder, &o), 0);
    ck_assert_int_eq(o->workers, 0); /* the command line is stronger */
}
END_TEST

/* ---- file ---- */

START_TEST(the_file_may_have_comments_quotes_blanks_and_dos_line_ends)
{
    write_file("\xEF\xBB\xBF# comment\r\n"
               "   \t\r\n"
               "  workers\t=  3   # three\r\n"
               "jwt-issuer = a#b # comment\n"
               "jwt-audience = \" two  words # \\\"x\\\" \\\\ \\n \"  # comment\n"
               "admin-claim=roles\n"
               "pid-file =\n"
               "user = # nobody in particular\n"
               "log-level = debug");
    ck_assert_int_eq(load(), 0);
    assert_text(&warnings, "");
    ck_assert_int_eq(o->workers, 3);
    ck_assert_int_eq(o->line[OPT_workers], 3);
    ck_assert_str_eq(o->jwt_issuer, "a#b");
    ck_assert_str_eq(o->jwt_audience, " two  words # \"x\" \\ \\n ");
    ck_assert_str_eq(o->admin_claim, "roles");
    ck_assert_str_eq(o->pid_file, "");
    ck_assert_str_eq(o->user, "");
    ck_assert_int_eq(o->log_level, LOG_LEVEL_DEBUG);
}
END_TEST

START_TEST(every_error_in_the_file_is_reported_with_its_line)
{
    char expected[2000];
    write_file("workers = 0\n"
               "\n"
               "ping-interval = 5x\n"
               "pong-interval = 5s\n"
               "no equals sign sesame\n"
               "log-format = jsno\n"
               "jwt-issuer = \"open\n"
               "jwt-issuer = \"a\"b\n"
               "max-header-size = 2M\n"
               "= 5\n"
               "history-size = 99999999999999999999\n");
    ck_assert_int_eq(load(), -EINVAL);
    snprintf(expected, sizeof(expected),
             "%1$s:1: workers: \"0\" is out of range 1..64, or auto\n"
             "%1$s:3: ping-interval: \"5x\" is not a time such as 500ms, 25s or 1h30m; range "
             "100ms..1h\n"
             "%1$s:4: unknown option pong-interval, did you mean ping-interval?\n"
             "%1$s:5: expected a line such as \"name = value\"\n"
             "%1$s:6: log-format: \"jsno\" is none of text, json; did you mean json?\n"
             "%1$s:7: jwt-issuer: the closing \" is missing\n"
             "%1$s:8: jwt-issuer: something follows the closing \"\n"
             "%1$s:9: max-header-size: \"2M\" is out of range 1k..1M\n"
             "%1$s:10: expected a line such as \"name = value\"\n"
             "%1$s:11: history-size: \"99999999999999999999\" is out of range 1..10000\n",
             file);
    assert_text(&errors, expected);
}
END_TEST

START_TEST(a_nul_byte_and_a_long_line_name_their_line)
{
    char text[9000];
    memset(text, 'a', sizeof(text));
    memcpy(text, "#\nworkers = 1\0\n#", 16);
    write_bytes(file, text, sizeof(text));
    ck_assert_int_eq(load(), -EINVAL);
    assert_holds(&errors, "b.conf:2: holds a NUL byte\n");
    assert_holds(&errors, "b.conf:3: longer than 8192 bytes\n");
}
END_TEST

START_TEST(a_scalar_given_twice_in_the_file_is_a_warning)
{
    write_file("workers = 1\n\nworkers = 2\n");
    ck_assert_int_eq(load(), 0);
    ck_assert_int_eq(o->workers, 2);
    assert_holds(&warnings, "b.conf:3: workers: given before, in line 1; this one counts\n");
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_an_error)
{
    char argument[80];
    ck_assert_int_eq(load("--config", in_folder("absent")), -EINVAL);
    assert_holds(&errors, "absent: cannot be read: No such file");
    snprintf(argument, sizeof(argument), "--config=%s", folder);
    ck_assert_int_eq(load(argument), -EINVAL);
    assert_holds(&errors, "cannot be read: Is a directory");
    char *big = calloc(1, (1 << 20) + 1);
    memset(big, '\n', (1 << 20) + 1);
    write_bytes(file, big, 1 << 20);
    ck_assert_int_eq(load(), 0);
    write_bytes(file, big, (1 << 20) + 1);
    ck_assert_int_eq(load(), -EINVAL);
    assert_holds(&errors, "larger than 1M");
    free(big);
}
END_TEST

START_TEST(a_pipe_is_read_but_not_waited_for_for_ever)
{
    static const char text[] = "workers = 3\n";
    char config[80];
    int ends[2];
    ck_assert_int_eq(mkfifo(file, 0600), 0);
    ck_assert_int_eq(load(), -EINVAL); /* nobody writes */
    assert_holds(&errors, "b.conf: cannot be read: Connection timed out\n");
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], text, strlen(text)), (ssize_t)strlen(text));
    close(ends[1]);
    snprintf(config, sizeof(config), "--config=/dev/fd/%d", ends[0]);
    ck_assert_int_eq(load(config), 0);
    ck_assert_int_eq(o->workers, 3);
    close(ends[0]);
}
END_TEST

START_TEST(a_file_of_nonsense_does_not_flood_the_screen)
{
    struct text_buf text = {0};
    for (int i = 0; i < 5000; i++)
        text_adds(&text, "nonsense\n");
    write_file(text.data);
    text_buf_free(&text);
    ck_assert_int_eq(load(), -EINVAL);
    ck_assert(errors.len < 20000);
    assert_holds(&errors, "too many errors");
}
END_TEST

START_TEST(a_file_cut_short_at_any_byte_is_read_within_its_end)
{
    static const char whole[] = "\xEF\xBB\xBFlisten = 127.0.0.1:1, [::1]:2 # x\r\n"
                                "jwt-issuer = \"a \\\" b\\\\\" # c\n"
                                "redis-url = redis://u:p%2Fw@[::1]:7/3\n"
                                "drain-time = 1m30s\n";
    for (size_t len = 0; len < sizeof(whole); len++) {
        write_bytes(file, whole, len);
        load(); /* good or bad; load() looks that reports and result agree */
    }
    ck_assert_ptr_nonnull(strstr(whole, "drain"));
    write_file(whole);
    ck_assert_int_eq(load(), 0);
    ck_assert_int_eq(o->drain_time, 90000);
}
END_TEST

START_TEST(any_single_byte_change_of_a_file_is_survived)
{
    static const char whole[] = "workers = 3 # \"x\"\njwt-issuer = \"a\\\"b\"\nlisten = *:1\n";
    static const char bytes[] = "\n\r\t \"#=\\,-a\x7f\xff"; /* and NUL */
    char text[sizeof(whole)];
    for (size_t at = 0; at < sizeof(whole) - 1; at++)
        for (size_t i = 0; i < sizeof(bytes); i++) {
            memcpy(text, whole, sizeof(whole));
            text[at] = bytes[i];
            write_bytes(file, text, sizeof(whole) - 1);
            load();
        }
}
END_TEST

/* ---- values ---- */

static void assert_refused(const char *argument, const char *error)
{
    ck_assert_msg(load(argument) == -EINVAL, "%s", argument);
    ck_assert_str_eq(errors.data, error);
}

START_TEST(values_of_the_wrong_form_are_refused_with_what_is_right)
{
    assert_refused("--listen=8000", "--listen: \"8000\": no port: write ADDR:PORT, [ADDR]:PORT, "
                                    "*:PORT or unix:PATH\n");
    assert_refused("--listen=", "--listen: at least one value is needed\n");
    assert_refused("--metrics-listen=::1:9", "--metrics-listen: \"::1:9\": a colon too many: an "
                                             "IPv6 address is written [ADDR]:PORT\n");
    assert_refused("--origins=https://a.org/", "--origins: \"https://a.org/\": an origin is "
                                               "scheme://host[:port] without a path\n");
    assert_refused("--origins=*", "--origins: \"*\": leave origins empty to allow all\n");
    assert_refused("--denylist-key=denylist", "--denylist-key: \"denylist\" must hold {jti} "
                                              "exactly once, or be empty\n");
    assert_refused("--user-channel=ws:user", "--user-channel: \"ws:user\" must hold {user_id} "
                                             "exactly once\n");
    assert_refused("--broadcast-channel=", "--broadcast-channel: must not be empty\n");
    assert_refused("--log-target=file:log", "--log-target: \"file:log\": the path must be absolute "
                                            "(file:/PATH)\n");
    assert_refused("--log-target=sylsog", "--log-target: \"sylsog\" is none of stderr, syslog, "
                                          "file:/PATH; did you mean syslog?\n");
    assert_refused("--jwt-issuer=a\nb", "--jwt-issuer: holds a control character\n");
    assert_refused("--workers=-1", "--workers: \"-1\" is not a number; range 1..64, or auto\n");
    assert_refused("--workers=\xff\"", "--workers: \"\\xff\\\"\" is not a number; range 1..64, or "
                                       "auto\n");
    assert_refused("--max-header-size=1q", "--max-header-size: \"1q\" is not a size such as 4096, "
                                           "16k or 1M; range 1k..1M\n");
    assert_refused("--jwt-algorithms=HS256,RS255",
                   "--jwt-algorithms: \"RS255\" is no known algorithm (HS256, HS384, HS512, RS256, "
                   "RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA); "
                   "did you mean RS256?\n");
    ck_assert_int_eq(load("--jwt-algorithms=none"), -EINVAL);
    assert_holds(&errors, "\"none\" is never accepted");
    ck_assert_int_eq(load("--jwt-algorithms=6|HS3"), -EINVAL);
    char path[160] = "--control-socket=/";
    memset(path + strlen(path), 'p', 107);
    assert_refused(path, "--control-socket: \"/pppppppppppppppppppppppppppppppppppppppppppppppppppp"
                         "ppppppppppppppppppppppppppppppppppppppppppppppp...\": the path is too "
                         "long (107 bytes)\n");
}
END_TEST

START_TEST(values_of_many_right_forms_are_taken)
{
    ck_assert_int_eq(load("--origins=https://a.org,http://localhost:5173,app://x", "--listen=*:0",
                          "--metrics-listen=unix:/m", "--jwt-algorithms=ES512, RS256",
                          "--log-target=/var/log/b", "--workers=AUTO", "--drain-time=0",
                          "--max-connections=0", "--control-socket=", "--log-level=Notice"),
                     0);
    ck_assert_uint_eq(o->origins.count, 3);
    ck_assert_uint_eq(o->jwt_algorithms.count, 2);
    ck_assert_str_eq(o->jwt_algorithms.items[1], "RS256");
    ck_assert_int_eq(o->log_level, LOG_LEVEL_NOTICE);
    assert_format(OPT_max_connections, "unlimited");
    assert_format(OPT_drain_time, "0s");
    ck_assert_int_eq(load("--origins="), 0);
    ck_assert_uint_eq(o->origins.count, 0);
}
END_TEST

START_TEST(values_are_written_as_the_file_reads_them_back)
{
    static const struct {
        const char *argument, *shown;
        enum option_id id;
    } cases[] = {
        {"--replay-window=5400s", "1h30m", OPT_replay_window},
        {"--history-ttl=90061001ms", "1d1h1m1s1ms", OPT_history_ttl},
        {"--send-buffer-limit=1536k", "1536k", OPT_send_buffer_limit},
        {"--send-buffer-limit=1024M", "1G", OPT_send_buffer_limit},
        {"--send-buffer-limit=5000", "5000", OPT_send_buffer_limit},
        {"--jwt-issuer= a", "\" a\"", OPT_jwt_issuer},
        {"--jwt-issuer=a #b", "\"a #b\"", OPT_jwt_issuer},
        {"--jwt-issuer=a#\"b\\", "a#\"b\\", OPT_jwt_issuer},
        {"--jwt-issuer=\"a\\", "\"\\\"a\\\\\"", OPT_jwt_issuer},
        {"--jwt-issuer=#", "\"#\"", OPT_jwt_issuer},
        {"--admin-values=a, b #c,d", "\"a,b #c,d\"", OPT_admin_values},
        {"--profile=finance-tracker", "finance-tracker", OPT_profile},
        {"--max-connections-per-user=unlimited", "unlimited", OPT_max_connections_per_user},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct text_buf line = {0};
        enum option_id ids[OPTIONS];
        unlink(file);
        ck_assert_int_eq(load(cases[i].argument), 0);
        assert_format(cases[i].id, cases[i].shown);
        text_addf(&line, "%s = ", options_table[cases[i].id].name);
        options_format(o, cases[i].id, &line);
        write_file(line.data);
        text_buf_free(&line);
        struct options *first = o;
        o = NULL;
        ck_assert_int_eq(load(), 0);
        ck_assert_int_eq(options_diff(first, o, ids), 0);
        options_free(first);
    }
}
END_TEST

START_TEST(differences_are_found)
{
    enum option_id ids[OPTIONS];
    ck_assert_int_eq(load(), 0);
    struct options *first = o;
    o = NULL;
    ck_assert_int_eq(load("--listen=127.0.0.1:8000", "--workers=auto"), 0);
    ck_assert_int_eq(options_diff(first, o, ids), 0); /* another source, but no other value */
    ck_assert_int_eq(load("--listen=*:1,*:2", "--workers=2", "--user=root", "--dev"), 0);
    ck_assert_int_eq(options_diff(first, o, ids), 5);
    ck_assert_int_eq(ids[0], OPT_listen);
    ck_assert_int_eq(ids[1], OPT_workers);
    ck_assert_int_eq(ids[2], OPT_user);
    ck_assert_int_eq(ids[3], OPT_redis_url);
    ck_assert_int_eq(ids[4], OPT_dev);
    options_free(first);
}
END_TEST

/* ---- secrets ---- */

START_TEST(no_report_shows_a_password)
{
    static const char *const bad[] = {
        "redis://:sesame@h:x",      "redis://:sesame@h/x",   "redis:/:sesame@h",
        "http://:sesame@h",         "redis://sesame@h",      "redis://:sesame@",
        "redis://:sesame%zz@h",     "redis://:sesame@[::1",  "unix://x:sesame@h/p",
        "redis://u:sesame@h:6379x", "redis://:sesame@h?x=1", "sesame",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        char argument[80], variable[80], line[200];
        char *environment[] = {variable, NULL};
        snprintf(argument, sizeof(argument), "--redis-url=%s", bad[i]);
        snprintf(variable, sizeof(variable), "BELFRY_REDIS_URL=%s", bad[i]);
        snprintf(line, sizeof(line), "redis-url = %s\nredis-url %s\nredis-url = \"%s\nredis-ulr=%s",
                 bad[i], bad[i], bad[i], bad[i]);
        write_file(line);
        ck_assert_int_eq(load_words(environment, false, argument, NULL), -EINVAL);
        assert_holds(&errors, "--redis-url: ");
        assert_holds(&errors, "BELFRY_REDIS_URL: ");
        assert_holds(&errors, "b.conf:1: redis-url: ");
        ck_assert(!strstr(errors.data, "sesame"));
    }
}
END_TEST

START_TEST(a_formatted_redis_url_hides_the_password)
{
    ck_assert_int_eq(load("--redis-url=redis://user:se%40same@h:7/1"), 0);
    assert_format(OPT_redis_url, "redis://user:***@h:7/1");
    ck_assert_int_eq(load("--redis-url=redis://:se@same@h"), 0);
    assert_format(OPT_redis_url, "redis://:***@h");
    ck_assert_int_eq(load("--redis-url=unix://u:p@/run/r"), 0);
    assert_format(OPT_redis_url, "unix://u:***@/run/r");
    ck_assert_int_eq(load("--redis-url=unix:///run/r"), 0);
    assert_format(OPT_redis_url, "unix:///run/r");
}
END_TEST

START_TEST(credentials_are_overwritten_in_the_arguments)
{
    char *argv[] = {(char[]){"belfryd"},
                    (char[]){"--redis-url=redis://u:pw@h:7/1"},
                    (char[]){"--workers=1"},
                    (char[]){"--redis-url"},
                    (char[]){"unix://u:p@w@/x"},
                    (char[]){"--redis-url=redis://h"},
                    (char[]){"--redis-url=nonsense:pw@h"},
                    (char[]){"--redis-url="},
                    (char[]){"--"},
                    (char[]){"--redis-url=redis://u:pw@h"},
                    NULL};
    options_scrub_argv(10, argv);
    ck_assert_str_eq(argv[1], "--redis-url=redis://****@h:7/1");
    ck_assert_str_eq(argv[2], "--workers=1");
    ck_assert_str_eq(argv[4], "unix://*****@/x");
    ck_assert_str_eq(argv[5], "--redis-url=redis://h");
    ck_assert_str_eq(argv[6], "--redis-url=***********@h");
    ck_assert_str_eq(argv[7], "--redis-url=");
    ck_assert_str_eq(argv[9], "--redis-url=redis://u:pw@h");
    char *last[] = {(char[]){"belfryd"}, (char[]){"--redis-url"}, NULL};
    options_scrub_argv(2, last);
    options_scrub_argv(0, last);
}
END_TEST

/* ---- --help and the sample ---- */

static char *printed(void (*print)(FILE *to))
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    ck_assert(f);
    print(f);
    fclose(f);
    return text;
}

START_TEST(help_has_every_option_in_eighty_columns)
{
    char *text = printed(options_print_help);
    for (int id = 0; id < OPTIONS; id++) {
        char line[64];
        snprintf(line, sizeof(line), "\n  --%s", options_table[id].name);
        char *at = strstr(text, line);
        ck_assert_msg(at, "%s", line);
        ck_assert(strchr("=\n", at[strlen(line)]));
    }
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        ck_assert_msg(strlen(line) <= 80, "%s", line);
    free(text);
}
END_TEST

START_TEST(the_checked_in_sample_is_what_the_table_prints)
{
    const char *top = getenv("srcdir");
    char path[4096], *expected = printed(options_print_sample);
    snprintf(path, sizeof(path), "%s/etc/belfry.conf", top ? top : ".");
    FILE *f = fopen(path, "r");
    ck_assert_msg(f, "%s: %s", path, strerror(errno));
    char *text = calloc(1, 100000);
    ck_assert_uint_gt(fread(text, 1, 99999, f), 0);
    fclose(f);
    if (strcmp(text, expected)) {
        write_bytes("belfry.conf.new", expected, strlen(expected));
        ck_abort_msg("%s is not what options_print_sample prints: take belfry.conf.new", path);
    }
    free(text);
    free(expected);
}
END_TEST

START_TEST(the_sample_with_every_option_uncommented_gives_the_defaults)
{
    char *text = printed(options_print_sample);
    struct text_buf plain = {0};
    int count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        bool is_option = line[0] == '#' && line[1] >= 'a' && line[1] <= 'z';
        count += is_option;
        ck_assert_uint_le(strlen(line), 80);
        text_addf(&plain, "%s\n", line + is_option);
    }
    ck_assert_int_eq(count, OPTIONS);
    ck_assert_int_eq(load(), 0);
    struct options *defaults = o;
    o = NULL;
    write_file(plain.data);
    ck_assert_int_eq(load(), 0);
    assert_text(&warnings, "");
    enum option_id ids[OPTIONS];
    ck_assert_int_eq(options_diff(defaults, o, ids), 0);
    for (int id = 0; id < OPTIONS; id++)
        ck_assert_int_eq(o->source[id], SOURCE_FILE);
    options_free(defaults);
    text_buf_free(&plain);
    free(text);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("options");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, every_default_is_valid_and_written_as_in_the_table);
    tcase_add_test(tc, every_row_has_a_name_a_known_check_a_range_and_help);
    tcase_add_test(tc, choices_are_numbered_as_the_header_says);
    tcase_add_test(tc, one_name_has_four_spellings);
    tcase_add_test(tc, the_stronger_source_wins);
    tcase_add_test(tc, repeated_lists_add_up_within_a_source_and_replace_weaker_ones);
    tcase_add_test(tc, a_weaker_sources_bad_value_is_still_an_error);
    tcase_add_test(tc, the_profile_and_dev_change_defaults_only);
    tcase_add_test(tc, switches_are_written_in_many_ways);
    tcase_add_test(tc, words_that_are_no_options_are_kept_in_order);
    tcase_add_test(tc, a_subcommand_ends_the_options_when_told_so);
    tcase_add_test(tc, commands_are_told_apart_from_options);
    tcase_add_test(tc, a_missing_value_is_an_error_that_eats_no_option);
    tcase_add_test(tc, unknown_options_name_the_nearest_one);
    tcase_add_test(tc, unknown_names_in_the_environment_are_warnings);
    tcase_add_test(tc, bad_values_in_the_environment_are_errors);
    tcase_add_test(tc, the_file_may_be_named_by_the_environment);
    tcase_add_test(tc, the_file_may_have_comments_quotes_blanks_and_dos_line_ends);
    tcase_add_test(tc, every_error_in_the_file_is_reported_with_its_line);
    tcase_add_test(tc, a_nul_byte_and_a_long_line_name_their_line);
    tcase_add_test(tc, a_scalar_given_twice_in_the_file_is_a_warning);
    tcase_add_test(tc, a_file_that_cannot_be_read_is_an_error);
    tcase_add_test(tc, a_pipe_is_read_but_not_waited_for_for_ever);
    tcase_add_test(tc, a_file_of_nonsense_does_not_flood_the_screen);
    tcase_add_test(tc, a_file_cut_short_at_any_byte_is_read_within_its_end);
    tcase_add_test(tc, any_single_byte_change_of_a_file_is_survived);
    tcase_add_test(tc, values_of_the_wrong_form_are_refused_with_what_is_right);
    tcase_add_test(tc, values_of_many_right_forms_are_taken);
    tcase_add_test(tc, values_are_written_as_the_file_reads_them_back);
    tcase_add_test(tc, differences_are_found);
    tcase_add_test(tc, no_report_shows_a_password);
    tcase_add_test(tc, a_formatted_redis_url_hides_the_password);
    tcase_add_test(tc, credentials_are_overwritten_in_the_arguments);
    tcase_add_test(tc, help_has_every_option_in_eighty_columns);
    tcase_add_test(tc, the_checked_in_sample_is_what_the_table_prints);
    tcase_add_test(tc, the_sample_with_every_option_uncommented_gives_the_defaults);
    Suite *s = suite_create("options");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
