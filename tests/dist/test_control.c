/* The control channel without MPI: the ranks are threads of this process, joined over loopback. */
#include "base/error.h"
#include "clock.h"
#include "control.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const comm_limits limits = {.grace_seconds = 60};

enum { SIZE = 4, NEWS_MS = 5000, QUIET_MS = 300 };

typedef struct {
    rank_place place[SIZE];
    rendezvous_invite invite;
    int fd[SIZE][SIZE]; /* of each rank: rank 0 has one to everybody, the others have the first */
    control *channel[SIZE];
} star;

typedef struct {
    star *s;
    int rank;
} joiner;

static void *join_star(void *argument)
{
    joiner *j = argument;
    bool by_loopback = j->rank < SIZE - 1 || j->s->invite.n_addresses == 0;
    j->s->fd[j->rank][0] = rendezvous_connect(&j->s->invite, j->rank, by_loopback);
    return NULL;
}

static int connect_raw(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Strangers knock first: one with a wrong token, one that leaves at once. */
static void knock_as_stranger(uint16_t port)
{
    char wrong[RENDEZVOUS_TOKEN_BYTES + 4] = {0};
    int fd = connect_raw(port);
    assert_int_equal(send(fd, wrong, sizeof wrong, 0), (int)sizeof wrong);
    close(fd);
    close(connect_raw(port));
}

static int connect_star(void **state)
{
    star *s = calloc(1, sizeof *s);
    assert_non_null(s);
    for (int r = 0; r < SIZE; r++) {
        snprintf(s->place[r].host, HOST_BYTES, "host%d", r / 2);
        s->place[r].host_leader = r / 2 * 2;
    }
    int listener = rendezvous_listen(&s->invite);
    assert_true(listener >= 0);
    knock_as_stranger(s->invite.port);
    pthread_t thread[SIZE];
    joiner joiners[SIZE];
    for (int r = 1; r < SIZE; r++) {
        joiners[r] = (joiner){.s = s, .rank = r};
        assert_int_equal(pthread_create(&thread[r], NULL, join_star, &joiners[r]), 0);
    }
    assert_int_equal(rendezvous_accept(listener, &s->invite, s->place, SIZE, s->fd[0]), 0);
    close(listener);
    for (int r = 1; r < SIZE; r++) {
        pthread_join(thread[r], NULL);
        assert_true(s->fd[r][0] >= 0);
    }
    *state = s;
    return 0;
}

static void open_channel(star *s, int rank)
{
    assert_int_equal(control_open(&s->channel[rank], rank, SIZE, s->place, s->fd[rank], &limits), 0);
}

static int open_star(void **state)
{
    connect_star(state);
    for (int r = 0; r < SIZE; r++)
        open_channel(*state, r);
    return 0;
}

static int close_star(void **state)
{
    star *s = *state;
    for (int r = SIZE - 1; r >= 0; r--)
        control_close(s->channel[r]);
    free(s);
    return 0;
}

static void expect_failure(const star *s, int rank, const char *text)
{
    assert_int_equal(control_await_failure(s->channel[rank], NEWS_MS), ERROR_COMM);
    assert_string_equal(error_message(), text);
}

static void test_goodbye_is_no_failure(void **state)
{
    star *s = *state;
    control_leave(s->channel[2], NULL);
    assert_int_equal(control_await_failure(s->channel[0], QUIET_MS), 0);
    control_leave(s->channel[0], NULL);
    assert_int_equal(control_await_failure(s->channel[1], QUIET_MS), 0);
    assert_int_equal(control_check(s->channel[3]), 0);
}

/* What a killed process leaves behind is a closed connection. */
static void test_lost_connection(void **state)
{
    star *s = *state;
    shutdown(s->fd[2][0], SHUT_RDWR);
    expect_failure(s, 0, "rank 2 on host1 ended without a word (its connection closed)");
    expect_failure(s, 1, "rank 2 on host1 ended without a word (its connection closed)");
    expect_failure(s, 3, "rank 2 on host1 ended without a word (its connection closed)");
}

/* Rank 0 is a bare end of the connections here, without a watchdog that would survive it. */
static void test_lost_centre(void **state)
{
    star *s = *state;
    for (int r = 1; r < SIZE; r++)
        open_channel(s, r);
    for (int r = 1; r < SIZE; r++)
        close(s->fd[0][r]);
    for (int r = 1; r < SIZE; r++)
        expect_failure(s, r, "rank 0 on host0 ended without a word (its connection closed)");
}

static void test_last_words(void **state)
{
    star *s = *state;
    control_leave(s->channel[3], "rank 3 on host1: disk full");
    assert_false(control_peer_failed(s->channel[3]));
    for (int r = 0; r < 3; r++)
        expect_failure(s, r, "rank 3 on host1: disk full");
    control_leave(s->channel[1], "a consequence");
    expect_failure(s, 0, "rank 3 on host1: disk full");
}

static void test_last_words_of_the_centre(void **state)
{
    star *s = *state;
    double start = clock_seconds();
    control_leave(s->channel[0], "rank 0 on host0: out of memory");
    assert_true(clock_seconds() - start < 10.0);
    for (int r = 1; r < SIZE; r++)
        expect_failure(s, r, "rank 0 on host0: out of memory");
}

/* Bytes that are no frame of ours count as a lost connection, whatever they announce. */
static void test_garbage(void **state)
{
    star *s = *state;
    uint32_t header[3] = {3, 1, UINT32_MAX};
    assert_int_equal(send(s->fd[1][0], header, sizeof header, MSG_NOSIGNAL), (int)sizeof header);
    expect_failure(s, 0, "rank 1 on host0 ended without a word (its connection closed)");
}

static void test_nobody_answers(void **state)
{
    (void)state;
    rendezvous_invite invite = {.port = 9};
    assert_int_equal(rendezvous_connect(&invite, 1, false), ERROR_COMM);
    assert_non_null(strstr(error_message(), "cannot reach rank 0 at port 9"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_goodbye_is_no_failure, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_lost_connection, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_lost_centre, connect_star, close_star),
        cmocka_unit_test_setup_teardown(test_last_words, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_last_words_of_the_centre, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_garbage, open_star, close_star),
        cmocka_unit_test(test_nobody_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
