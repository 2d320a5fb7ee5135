/*
 * ctl_token.c - belfryctl token: mints a token with the configured secret.
 */
#include "config.h"

#include "src/ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/token.h"

int ctl_mint(const struct ctl *c, const char *user_id, bool admin, int64_t ttl_ms, char **out)
{
    struct token_keys *keys = NULL;
    char why[512] = "";
    if (c->options->jwt_secret_file[0] == '\0') {
        ctl_say("no secret to sign with: set jwt-secret-file (a running belfryd --dev prints the "
                "--config to use)");
        return CTL_FAILED;
    }
    int result = token_keys_load(c->options, &keys, why, sizeof(why));
    if (result != 0) {
        ctl_say("%s", why[0] ? why : strerror(-result));
        return CTL_FAILED;
    }
    result = token_mint(keys, user_id, admin, ttl_ms, clock_wall_ms(), out);
    token_keys_free(keys);
    if (result == 0)
        return CTL_DONE;
    if (result == -ENOKEY)
        ctl_say("jwt-algorithms names none of HS256, HS384, HS512: such a token would be refused; "
                "ask whoever holds the private key");
    else
        ctl_say("token: %s", strerror(-result));
    return CTL_FAILED;
}

int ctl_token(struct ctl *c)
{
    const char *user = ctl_value(c, "user");
    int64_t ttl_ms;
    if (!user) {
        ctl_say("token: --user=ID is needed");
        return CTL_USAGE;
    }
    if (ctl_check_user(user) != 0 || ctl_time(c, "ttl", 3600 * 1000, &ttl_ms) != 0)
        return CTL_USAGE;
    char *token = NULL;
    int result = ctl_mint(c, user, ctl_flag(c, "admin"), ttl_ms, &token);
    if (result == CTL_DONE && ctl_print_line(token, strlen(token)) != 0)
        result = CTL_FAILED;
    free(token);
    return result;
}
