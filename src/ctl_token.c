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

int ctl_mint(const struct ctl *c, const struct token_request *what, char **out)
{
    struct token_keys *keys = NULL;
    char why[512] = "";
    if (!c->options->jwt_secret_file[0] && !c->options->jwt_jwks_file[0]) {
        ctl_say("no secret to sign with: set jwt-secret-file, or jwt-jwks-file with an oct key (a "
                "running belfryd --dev prints the --config to use)");
        return CTL_FAILED;
    }
    int result = token_keys_load(c->options, &keys, why, sizeof(why));
    if (result != 0) {
        ctl_say("%s", why[0] ? why : strerror(-result));
        return CTL_FAILED;
    }
    result = token_mint(keys, what, clock_wall_ms(), out);
    token_keys_free(keys);
    if (result == 0)
        return CTL_DONE;
    if (result == -ENOKEY)
        ctl_say("jwt-algorithms names none of HS256, HS384, HS512, or there is no HMAC key: such a "
                "token would be refused; ask whoever holds the private key");
    else if (result == -ENOENT)
        ctl_say("token: %s: no HMAC key of jwt-jwks-file has this kid", what->kid);
    else
        ctl_say("token: %s", strerror(-result));
    return CTL_FAILED;
}

int ctl_token(struct ctl *c)
{
    const char *user = ctl_value(c, "user");
    struct token_request what = {.user_id = user,
                                 .is_admin = ctl_flag(c, "admin"),
                                 .jti = ctl_value(c, "jti"),
                                 .kid = ctl_value(c, "kid")};
    if (!user) {
        ctl_say("token: --user=ID is needed");
        return CTL_USAGE;
    }
    if (ctl_check_user(user) != 0 || ctl_time(c, "ttl", 3600 * 1000, &what.ttl_ms) != 0)
        return CTL_USAGE;
    if (what.jti && !keys_is_user_id(what.jti, strlen(what.jti))) {
        ctl_say("token: --jti must be 1 to 256 bytes of text");
        return CTL_USAGE;
    }
    char *token = NULL;
    int result = ctl_mint(c, &what, &token);
    if (result == CTL_DONE && ctl_print_line(token, strlen(token)) != 0)
        result = CTL_FAILED;
    free(token);
    return result;
}
