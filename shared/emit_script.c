/*
 * emit_script.c - the script that stores, trims, keeps and publishes one event, and its SHA-1.
 *
 * Anybody may use it from any language: belfry-protocol(7) prints it. Plain Lua 5.1 and commands
 * that Redis 2.6 and every Valkey know. A list under a key of another type makes LPUSH fail before
 * anything is written; what follows it cannot fail for its type.
 */
#include "config.h"

#include "shared/emit.h"

const char emit_script[] =
    "local size, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])\n"
    "if ARGV[3] ~= '' then\n"
    "  redis.call('LPUSH', KEYS[1], ARGV[3])\n"
    "  redis.call('LTRIM', KEYS[1], 0, size - 1)\n"
    "  redis.call('EXPIRE', KEYS[1], ttl)\n"
    "end\n"
    "if ARGV[6] ~= '' then\n"
    "  redis.call('SET', KEYS[2], ARGV[6], 'EX', ttl)\n"
    "end\n"
    "if ARGV[2] ~= '' then\n"
    "  return redis.call('PUBLISH', ARGV[1], ARGV[2])\n"
    "end\n"
    "return 0\n";

const char emit_script_sha[41] = "6bbcd88dfbfbb9276b3303af46a86c1881831478";
