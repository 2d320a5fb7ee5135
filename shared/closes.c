/*
 * closes.c - see closes.h.
 */
#include "config.h"

#include "shared/closes.h"

#include <stddef.h>

#define NAME_BYTES 24
/* A control frame's body less the code: RFC 6455, sections 5.5 and 5.5.1. */
#define REASON_MAX_BYTES 123

/* Made when the program is loaded: the table's names are C identifiers in upper case. */
static char lower_names[CLOSE_REASONS][NAME_BYTES];

#define CLOSE(name, code, reason, word, client, help)                                 \
    _Static_assert(sizeof #name <= NAME_BYTES, "NAME_BYTES is too small for " #name); \
    _Static_assert(sizeof reason - 1 <= REASON_MAX_BYTES, "reason does not fit a close frame");
#include "shared/closes.def"
#undef CLOSE

const struct close_row closes_table[CLOSE_REASONS] = {
#define CLOSE(name, code, reason, word, client, help) \
    {lower_names[CLOSE_##name], code, reason, word, client, help},
#include "shared/closes.def"
#undef CLOSE
};

__attribute__((constructor)) static void make_lower_names(void)
{
    static const char *const upper[CLOSE_REASONS] = {
#define CLOSE(name, code, reason, word, client, help) #name,
#include "shared/closes.def"
#undef CLOSE
    };
    for (int i = 0; i < CLOSE_REASONS; i++)
        for (size_t j = 0; upper[i][j]; j++) {
            char c = upper[i][j];
            lower_names[i][j] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        }
}
