/* The program of libbelfry(3): cc -o example example_emit.c $(pkg-config --cflags --libs belfry) */
#include <belfry.h>
#include <stdio.h>

int main(void)
{
    struct belfry_config config = {.redis_url = "redis://127.0.0.1:6379/0"};
    struct belfry *b = belfry_open(&config);
    int n = belfry_emit(b, "alice", "TRANSACTION_DELETED",
                        "{\"id\":\"tx-1\"}", 0, NULL);
    if (n < 0)
        fprintf(stderr, "example: %s\n", belfry_errmsg(b));
    belfry_close(b);
    return n < 0;
}
