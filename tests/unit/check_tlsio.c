#include "config.h"

#include <check.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/clock.h"
#include "workers/tlsio.h"

#define STEPS 200

/* ---- certificates ---- */

static char certificate[4096], key[4096], other_key[4096];

static void take(BIO *bio, char *out, size_t cap)
{
    int n = BIO_read(bio, out, (int)cap - 1);
    ck_assert_int_gt(n, 0);
    out[n] = '\0';
    BIO_free(bio);
}

static EVP_PKEY *make_key(char *out, size_t cap)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_mem());
    ck_assert_ptr_nonnull(pkey);
    ck_assert_int_eq(PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
    take(bio, out, cap);
    return pkey;
}

static void make_pair(void)
{
    EVP_PKEY *pkey = make_key(key, sizeof key);
    X509 *x = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, pkey);
    ck_assert_int_gt(X509_sign(x, pkey, EVP_sha256()), 0);
    ck_assert_int_eq(PEM_write_bio_X509(bio, x), 1);
    take(bio, certificate, sizeof certificate);
    X509_free(x);
    EVP_PKEY_free(pkey);
    EVP_PKEY_free(make_key(other_key, sizeof other_key));
    signal(SIGPIPE, SIG_IGN);
}

static struct tls_server *make_server(int64_t session_ms, const struct tickets *t)
{
    enum tls_fault fault;
    char why[200];
    struct tls_server *s =
        tls_server_new(certificate, key, session_ms, &fault, why, sizeof why);
    ck_assert_ptr_nonnull(s);
    if (t)
        tls_server_set_tickets(s, t);
    return s;
}

/* ---- a client and a server over a pair of sockets ---- */

struct talk {
    SSL_CTX *context;
    SSL *client;
    struct tlsio *server;
    int fds[2];
    SSL_SESSION *session; /* what the client was given last */
};

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct talk *t = SSL_get_app_data(ssl);
    SSL_SESSION_free(t->session);
    t->session = session;
    return 1;
}

/* Both sides take turns; what the server's last step said. */
static int shake(struct talk *t)
{
    int result = 0, events = 0;
    for (int i = 0; i < STEPS && result == 0; i++) {
        SSL_do_handshake(t->client);
        result = tlsio_handshake(t->server, &events);
    }
    return result;
}

static void open_talk(struct talk *t, struct tls_server *s, SSL_SESSION *resume, int version)
{
    *t = (struct talk){.context = SSL_CTX_new(TLS_client_method())};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, t->fds), 0);
    SSL_CTX_set_session_cache_mode(t->context,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(t->context, keep_session);
    SSL_CTX_set_max_proto_version(t->context, version);
    t->client = SSL_new(t->context);
    SSL_set_app_data(t->client, t);
    SSL_set_fd(t->client, t->fds[0]);
    SSL_set_connect_state(t->client);
    if (resume)
        SSL_set_session(t->client, resume);
    t->server = tlsio_new(s, t->fds[1]);
    ck_assert_ptr_nonnull(t->server);
}

static void close_talk(struct talk *t)
{
    SSL_SESSION_free(t->session);
    /* Or OpenSSL takes the session for broken off, and offers it no more. */
    SSL_set_shutdown(t->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->client);
    SSL_CTX_free(t->context);
    tlsio_free(t->server);
    close(t->fds[0]);
    close(t->fds[1]);
}

/* A byte from the server, behind which its tickets have come. */
static void hear(struct talk *t)
{
    struct iovec iov = {(char[]){"x"}, 1};
    int events;
    char c = 0;
    ck_assert_int_eq(tlsio_writev(t->server, &iov, 1, &events), 1);
    for (int i = 0; i < STEPS && !c; i++)
        SSL_read(t->client, &c, 1);
    ck_assert_int_eq(c, 'x');
}

static SSL_SESSION *begin_session(struct tls_server *s, int version)
{
    struct talk t;
    open_talk(&t, s, NULL, version);
    ck_assert_int_eq(shake(&t), 1);
    ck_assert(!tlsio_is_resumed(t.server));
    hear(&t);
    SSL_SESSION *session = t.session;
    t.session = NULL;
    close_talk(&t);
    return session;
}

static bool resumes(struct tls_server *s, SSL_SESSION *session, int version)
{
    struct talk t;
    SSL_SESSION *copy = SSL_SESSION_dup(session); /* OpenSSL uses one once only */
    open_talk(&t, s, copy, version);
    SSL_SESSION_free(copy);
    ck_assert_int_eq(shake(&t), 1);
    bool result = tlsio_is_resumed(t.server);
    hear(&t);
    close_talk(&t);
    return result;
}

/* ---- tests ---- */

START_TEST(a_pair_that_does_not_fit_is_told_by_the_file_at_fault)
{
    static const char rubbish[] = "-----BEGIN CERTIFICATE-----\nrubbish\n";
    enum tls_fault fault;
    char why[200];
    ck_assert_ptr_null(tls_server_new("", key, 0, &fault, why, sizeof why));
    ck_assert_int_eq(fault, TLS_FAULT_CERTIFICATE);
    ck_assert_ptr_null(tls_server_new(rubbish, key, 0, &fault, why, sizeof why));
    ck_assert_int_eq(fault, TLS_FAULT_CERTIFICATE);
    ck_assert_ptr_null(tls_server_new(certificate, "", 0, &fault, why, sizeof why));
    ck_assert_int_eq(fault, TLS_FAULT_KEY);
    ck_assert_ptr_null(tls_server_new(certificate, other_key, 0, &fault, why, sizeof why));
    ck_assert_int_eq(fault, TLS_FAULT_KEY);
    ck_assert_int_eq((int)ERR_peek_error(), 0);
}
END_TEST

START_TEST(a_certificate_tells_when_it_is_valid)
{
    int64_t from_ms, until_ms, now_ms = clock_wall_ms();
    struct tls_server *s = make_server(0, NULL);
    tls_server_validity(s, &from_ms, &until_ms);
    ck_assert_int_le(llabs(now_ms - 60000 - from_ms), 30000);
    ck_assert_int_le(llabs(now_ms + 3600000 - until_ms), 30000);
    tls_server_free(s);
}
END_TEST

START_TEST(a_ticket_opens_with_its_key_until_that_was_changed_twice)
{
    int version = _i ? TLS1_3_VERSION : TLS1_2_VERSION;
    struct tickets tickets = {0};
    ck_assert_int_eq(tickets_rotate(&tickets, 1), 0);
    struct tls_server *one = make_server(3600000, &tickets);
    struct tls_server *other = make_server(3600000, &tickets);
    struct tls_server *stranger = make_server(3600000, NULL);
    SSL_SESSION *session = begin_session(one, version);
    ck_assert_ptr_nonnull(session);
    ck_assert(resumes(one, session, version));
    ck_assert(resumes(other, session, version)); /* another worker */
    ck_assert(!resumes(stranger, session, version));
    ck_assert_int_eq(tickets_rotate(&tickets, 2), 0);
    tls_server_set_tickets(other, &tickets);
    ck_assert(resumes(other, session, version));
    ck_assert_int_eq(tickets_rotate(&tickets, 3), 0);
    tls_server_set_tickets(other, &tickets);
    ck_assert(!resumes(other, session, version));
    ck_assert(resumes(one, session, version)); /* who was not told yet */
    SSL_SESSION_free(session);
    tls_server_free(one);
    tls_server_free(other);
    tls_server_free(stranger);
}
END_TEST

START_TEST(no_ticket_is_given_when_no_session_may_be_resumed)
{
    struct tls_server *s = make_server(0, NULL);
    SSL_SESSION *session = begin_session(s, TLS1_3_VERSION);
    ck_assert_ptr_null(session);
    tls_server_free(s);
}
END_TEST

START_TEST(keys_differ_and_a_rotation_keeps_the_last_one)
{
    struct tickets t = {0};
    ck_assert_int_eq(tickets_rotate(&t, 5), 0);
    struct tickets before = t;
    ck_assert_int_eq(t.made_ms, 5);
    ck_assert_mem_ne(&t.keys[0], &t.keys[1], sizeof t.keys[0]);
    ck_assert_int_eq(tickets_rotate(&t, 6), 0);
    ck_assert_mem_eq(&t.keys[1], &before.keys[0], sizeof t.keys[0]);
    ck_assert_mem_ne(&t.keys[0], &before.keys[0], sizeof t.keys[0]);
    ck_assert_mem_ne(&t.keys[0], &before.keys[1], sizeof t.keys[0]);
}
END_TEST

/* What stands at that place of the stream. */
static void fill(unsigned char *out, size_t at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (unsigned char)((at + i) * 2654435761u >> 13);
}

/* What was taken arrives whole and in order, however little the socket takes at a time, and though
 * the caller's own bytes are changed meanwhile. */
START_TEST(what_was_taken_arrives_whole_and_in_order)
{
    enum { TOTAL = 1 << 20, PIECE = 40000 };
    struct talk t;
    struct tls_server *s = make_server(0, NULL);
    static unsigned char piece[PIECE], heard[PIECE], expected[PIECE];
    size_t sent = 0, got = 0;
    bool was_pending = false;
    open_talk(&t, s, NULL, TLS1_3_VERSION);
    setsockopt(t.fds[1], SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
    ck_assert_int_eq(shake(&t), 1);
    for (int i = 0; i < 100000 && got < TOTAL; i++) {
        size_t len = TOTAL - sent < PIECE ? TOTAL - sent : PIECE;
        int events = 0;
        fill(piece, sent, len);
        struct iovec iov[2] = {{piece, len / 3}, {piece + len / 3, len - len / 3}};
        ssize_t n = tlsio_writev(t.server, iov, 2, &events);
        ck_assert(n >= 0 || n == -EAGAIN);
        if (n > 0)
            sent += (size_t)n;
        was_pending = was_pending || tlsio_has_pending(t.server);
        if (n >= 0 && i % 3) /* more is offered than the socket takes */
            continue;
        int m = SSL_read(t.client, heard, PIECE);
        if (m <= 0)
            continue;
        fill(expected, got, (size_t)m);
        ck_assert_mem_eq(heard, expected, (size_t)m);
        got += (size_t)m;
    }
    ck_assert_uint_eq(got, TOTAL);
    ck_assert(was_pending); /* or nothing was tried */
    close_talk(&t);
    tls_server_free(s);
}
END_TEST

/* ---- how it ends ---- */

START_TEST(the_end_is_told_apart_from_a_broken_connection)
{
    struct talk t;
    struct tls_server *s = make_server(0, NULL);
    char buf[16384];
    int events;
    open_talk(&t, s, NULL, TLS1_3_VERSION);
    ck_assert_int_eq(shake(&t), 1);
    ck_assert_int_eq(tlsio_read(t.server, buf, sizeof buf, &events), -EAGAIN);
    SSL_shutdown(t.client);
    ck_assert_int_eq(tlsio_read(t.server, buf, sizeof buf, &events), 0);
    tlsio_shutdown(t.server);
    ck_assert_int_eq(SSL_read(t.client, buf, 1), 0);
    ck_assert_int_eq(SSL_get_error(t.client, 0), SSL_ERROR_ZERO_RETURN); /* close_notify came */
    close_talk(&t);
    open_talk(&t, s, NULL, TLS1_3_VERSION);
    ck_assert_int_eq(shake(&t), 1);
    ck_assert_int_eq(write(t.fds[0], "\x17\x03\x03\x00\x14" "aaaaaaaaaaaaaaaaaaaa", 25), 25);
    ck_assert_int_eq(tlsio_read(t.server, buf, sizeof buf, &events), -EPROTO);
    ck_assert_int_eq(tlsio_read(t.server, buf, sizeof buf, &events), -ECONNRESET);
    ck_assert_int_eq(tlsio_writev(t.server, NULL, 0, &events), -EPIPE);
    close_talk(&t);
    tls_server_free(s);
}
END_TEST

static const struct {
    const char *bytes;
    size_t len;
    enum tls_failure failure;
} beginnings[] = {
    {"GET / HTTP/1.1\r\n\r\n", 18, TLS_FAILURE_PLAIN_HTTP},
    {"POST /x HTTP/1.1\r\n", 18, TLS_FAILURE_PLAIN_HTTP},
    {"SSH-2.0-OpenSSH_9.2\r\n", 21, TLS_FAILURE_NOT_TLS},
    {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9, TLS_FAILURE_PROTOCOL},
    {"\x16\x03\x01", 3, TLS_FAILURE_LEFT},
    {"", 0, TLS_FAILURE_LEFT},
};

START_TEST(a_failure_has_a_reason)
{
    struct talk t;
    struct tls_server *s = make_server(0, NULL);
    const char *detail = NULL;
    int events;
    open_talk(&t, s, NULL, TLS1_3_VERSION);
    ck_assert_int_eq(write(t.fds[0], beginnings[_i].bytes, beginnings[_i].len),
                     (ssize_t)beginnings[_i].len);
    shutdown(t.fds[0], SHUT_WR);
    ck_assert_int_lt(tlsio_handshake(t.server, &events), 0);
    ck_assert_int_eq(tlsio_failure(t.server, &detail), beginnings[_i].failure);
    ck_assert_ptr_nonnull(detail);
    ck_assert_int_eq((int)ERR_peek_error(), 0);
    close_talk(&t);
    tls_server_free(s);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("tlsio");
    Suite *s = suite_create("tlsio");
    tcase_add_unchecked_fixture(c, make_pair, NULL);
    tcase_add_test(c, a_pair_that_does_not_fit_is_told_by_the_file_at_fault);
    tcase_add_test(c, a_certificate_tells_when_it_is_valid);
    tcase_add_loop_test(c, a_ticket_opens_with_its_key_until_that_was_changed_twice, 0, 2);
    tcase_add_test(c, no_ticket_is_given_when_no_session_may_be_resumed);
    tcase_add_test(c, keys_differ_and_a_rotation_keeps_the_last_one);
    tcase_add_test(c, what_was_taken_arrives_whole_and_in_order);
    tcase_add_test(c, the_end_is_told_apart_from_a_broken_connection);
    tcase_add_loop_test(c, a_failure_has_a_reason, 0,
                        (int)(sizeof beginnings / sizeof *beginnings));
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
