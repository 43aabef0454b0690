/* The control channel without MPI: the ranks are threads of this process, joined over loopback. */
#include "base/clock.h"
#include "base/error.h"
#include "control.h"
#include "time_limit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const comm_limits limits = {.grace_seconds = 60, .silence_seconds = 60};

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

/* What a rank says first, and again when it has heard the answer. */
typedef struct {
    uint8_t token[RENDEZVOUS_TOKEN_BYTES];
    uint32_t rank;
} words;

static words greeting_of(const rendezvous_invite *invite, uint32_t rank)
{
    words w = {.rank = htonl(rank)};
    memcpy(w.token, invite->token, sizeof w.token);
    return w;
}

static int knock(uint16_t port, const void *bytes, size_t n)
{
    int fd = connect_raw(port);
    assert_int_equal(send(fd, bytes, n, 0), (int)n);
    return fd;
}

/* They come before the ranks and stay: most say nothing, some a little, others nonsense. */
enum { STRANGERS = 64 };

static void crowd(uint16_t port, int stranger[STRANGERS])
{
    const words wrong = {.rank = htonl(1)};
    for (int i = 0; i < STRANGERS; i++)
        stranger[i] = i % 8 == 0   ? knock(port, &wrong, 1)
                      : i % 8 == 1 ? knock(port, &wrong, sizeof wrong)
                                   : connect_raw(port);
    close(connect_raw(port));
}

/* Two who know the token: a rank that gave up before it heard the answer, and a number that is no rank's. */
static void knock_and_leave(const rendezvous_invite *invite)
{
    const words rank = greeting_of(invite, 2), nobody = greeting_of(invite, SIZE);
    close(knock(invite->port, &rank, sizeof rank));
    close(knock(invite->port, &nobody, sizeof nobody));
}

/* Open, and with nothing to read: not a word of the welcome is left over. */
static void assert_open(int fd)
{
    char byte;
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    assert_int_equal(errno, EAGAIN);
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
    int stranger[STRANGERS];
    crowd(s->invite.port, stranger);
    knock_and_leave(&s->invite);
    double start = clock_seconds();
    pthread_t thread[SIZE];
    joiner joiners[SIZE];
    for (int r = 1; r < SIZE; r++) {
        joiners[r] = (joiner){.s = s, .rank = r};
        assert_int_equal(pthread_create(&thread[r], NULL, join_star, &joiners[r]), 0);
    }
    assert_int_equal(rendezvous_accept(listener, &s->invite, s->place, SIZE, s->fd[0]), 0);
    assert_true(clock_seconds() - start < 1.0);
    close(listener);
    for (int r = 1; r < SIZE; r++) {
        pthread_join(thread[r], NULL);
        assert_true(s->fd[r][0] >= 0);
        assert_open(s->fd[0][r]);
        assert_open(s->fd[r][0]);
    }
    for (int i = 0; i < STRANGERS; i++)
        close(stranger[i]);
    *state = s;
    return 0;
}

static void open_limited(star *s, int rank, const comm_limits *l)
{
    assert_int_equal(control_open(&s->channel[rank], rank, SIZE, s->place, s->fd[rank], l), 0);
}

static void open_channel(star *s, int rank)
{
    open_limited(s, rank, &limits);
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
    control_leave(s->channel[2], 0, "");
    assert_int_equal(control_await_failure(s->channel[0], QUIET_MS), 0);
    control_leave(s->channel[0], 0, "");
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
    control_leave(s->channel[3], ERROR_FILE, "rank 3 on host1: disk full");
    assert_false(control_peer_failed(s->channel[3]));
    for (int r = 0; r < 3; r++)
        expect_failure(s, r, "rank 3 on host1: disk full");
    control_leave(s->channel[1], ERROR_FILE, "a consequence");
    expect_failure(s, 0, "rank 3 on host1: disk full");
    assert_int_equal(control_peer_code(s->channel[0]), ERROR_FILE);
}

static void test_a_signal_is_passed_on(void **state)
{
    star *s = *state;
    control_leave(s->channel[3], ERROR_STOPPED, "rank 3 on host1: stopped by SIGTERM");
    for (int r = 0; r < 3; r++) {
        expect_failure(s, r, "rank 3 on host1: stopped by SIGTERM");
        assert_int_equal(control_peer_code(s->channel[r]), ERROR_STOPPED);
    }
}

static void test_last_words_of_the_centre(void **state)
{
    star *s = *state;
    double start = clock_seconds();
    control_leave(s->channel[0], ERROR_FILE, "rank 0 on host0: out of memory");
    assert_true(clock_seconds() - start < 10.0);
    for (int r = 1; r < SIZE; r++)
        expect_failure(s, r, "rank 0 on host0: out of memory");
}

/* A job that is suspended for longer than silence may last (`scontrol suspend`, Ctrl-Z) goes on when it may. */
static void test_suspended_job(void **state)
{
    star *s = *state;
    const comm_limits strict = {.grace_seconds = 60, .silence_seconds = 3};
    pid_t job = getpid(), scheduler = fork();
    if (scheduler == 0) {
        clock_sleep_us(200000);
        kill(job, SIGSTOP);
        clock_sleep_us(4600000);
        kill(job, SIGCONT);
        _exit(0);
    }
    for (int r = 0; r < SIZE; r++)
        open_limited(s, r, &strict);
    assert_int_equal(waitpid(scheduler, NULL, 0), scheduler);
    for (int r = 0; r < SIZE; r++)
        assert_int_equal(control_await_failure(s->channel[r], QUIET_MS), 0);
}

static atomic_int ends;
static char end_message[256];

static void count_end(const char *message)
{
    snprintf(end_message, sizeof end_message, "%s", message ? message : "");
    atomic_fetch_add(&ends, 1);
}

static bool ends_within(double seconds)
{
    double deadline = clock_seconds() + seconds;
    while (atomic_load(&ends) == 0 && clock_seconds() < deadline)
        clock_sleep_us(1000);
    return atomic_load(&ends) > 0;
}

/* Rank 1 has a longer grace, rank 2 leaves in time, rank 3 has no last resort. */
static void test_no_last_resort(void **state)
{
    star *s = *state;
    const comm_limits later = {.grace_seconds = 60, .silence_seconds = 60, .end_process = count_end};
    const comm_limits soon = {.grace_seconds = 0.5, .silence_seconds = 60, .end_process = count_end},
                      never = {.grace_seconds = 0.5, .silence_seconds = 60};
    open_channel(s, 0);
    open_limited(s, 1, &later);
    open_limited(s, 2, &soon);
    open_limited(s, 3, &never);
    control_leave(s->channel[0], ERROR_FILE, "rank 0 on host0: disk full");
    expect_failure(s, 2, "rank 0 on host0: disk full");
    control_leave(s->channel[2], ERROR_FILE, "a consequence");
    assert_false(ends_within(3));
}

static void test_last_resort(void **state)
{
    star *s = *state;
    const comm_limits soon = {.grace_seconds = 0.5, .silence_seconds = 60, .end_process = count_end};
    open_channel(s, 0);
    open_limited(s, 1, &soon);
    open_channel(s, 2);
    open_channel(s, 3);
    strcpy(end_message, "none");
    control_leave(s->channel[0], ERROR_FILE, "rank 0 on host0: disk full");
    assert_true(ends_within(5));
    assert_string_equal(end_message, "");
}

static void test_time_limit(void **state)
{
    (void)state;
    atomic_store(&ends, 0);
    assert_null(time_limit_start(1, NULL, "nothing"));
    time_limit_stop(NULL);
    time_limit_stop(time_limit_start(0, count_end, "a short wait"));
    assert_false(ends_within(1.5));
    time_limit *limit = time_limit_start(0, count_end, "a long wait");
    assert_true(ends_within(5));
    time_limit_stop(limit);
    assert_int_equal(atomic_load(&ends), 1);
    assert_non_null(strstr(end_message, "a long wait has taken 0 s: a rank may have died"));
}

/* Bytes that are no frame of ours count as a lost connection, whatever they announce. */
static void test_garbage(void **state)
{
    star *s = *state;
    uint32_t header[4] = {3, 1, 0, UINT32_MAX};
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

/* More than are listened to at once: the one that has been there longest has to go, again and again. */
static void test_more_strangers_than_places(void **state)
{
    enum { MANY = 300 };
    star s = {0};
    int stranger[MANY];
    (void)state;
    int listener = rendezvous_listen(&s.invite);
    for (int i = 0; i < MANY; i++)
        stranger[i] = connect_raw(s.invite.port);
    joiner one = {.s = &s, .rank = 1};
    pthread_t thread;
    double start = clock_seconds();
    assert_int_equal(pthread_create(&thread, NULL, join_star, &one), 0);
    assert_int_equal(rendezvous_accept(listener, &s.invite, s.place, 2, s.fd[0]), 0);
    assert_true(clock_seconds() - start < 1.0);
    pthread_join(thread, NULL);
    assert_open(s.fd[1][0]);
    close(s.fd[1][0]);
    close(s.fd[0][1]);
    close(listener);
    for (int i = 0; i < MANY; i++)
        close(stranger[i]);
}

/* Rank 0's host may have addresses that lead nowhere from here. */
static void *join_far(void *argument)
{
    joiner *j = argument;
    j->s->fd[1][0] = rendezvous_connect(&j->s->invite, 1, false);
    return NULL;
}

static void test_addresses_that_lead_nowhere(void **state)
{
    star s = {0};
    (void)state;
    int listener = rendezvous_listen(&s.invite);
    for (uint32_t i = 0; i < RENDEZVOUS_ADDRESSES; i++)
        s.invite.address[i] = address_from_v4(htonl(0xc0000201 + i)); /* 192.0.2.1 and on: nobody's */
    s.invite.address[RENDEZVOUS_ADDRESSES - 1] = address_from_v4(htonl(INADDR_LOOPBACK));
    s.invite.n_addresses = RENDEZVOUS_ADDRESSES;
    joiner one = {.s = &s, .rank = 1};
    pthread_t thread;
    double start = clock_seconds();
    assert_int_equal(pthread_create(&thread, NULL, join_far, &one), 0);
    assert_int_equal(rendezvous_accept(listener, &s.invite, s.place, 2, s.fd[0]), 0);
    assert_true(clock_seconds() - start < 1.0);
    pthread_join(thread, NULL);
    close(s.fd[1][0]);
    close(s.fd[0][1]);
    close(listener);
}

static bool has_ipv6(void)
{
    const struct sockaddr_in6 own = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&own, sizeof own) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static void test_ipv6_alone(void **state)
{
    star s = {0};
    (void)state;
    if (!has_ipv6())
        skip();
    int listener = rendezvous_listen(&s.invite);
    s.invite.address[0] = (host_address){.v6 = IN6ADDR_LOOPBACK_INIT};
    s.invite.n_addresses = 1;
    joiner one = {.s = &s, .rank = 1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, join_far, &one), 0);
    assert_int_equal(rendezvous_accept(listener, &s.invite, s.place, 2, s.fd[0]), 0);
    pthread_join(thread, NULL);
    struct sockaddr_in6 peer;
    socklen_t bytes = sizeof peer;
    assert_int_equal(getpeername(s.fd[1][0], (struct sockaddr *)&peer, &bytes), 0);
    assert_true(IN6_IS_ADDR_LOOPBACK(&peer.sin6_addr));
    close(s.fd[1][0]);
    close(s.fd[0][1]);
    close(listener);
}

static void stand(const star *s, int rank, rank_phase phase, bool waits)
{
    static uint64_t changes;
    const rank_standing standing = {
        .entered = (int32_t)phase, .waits = waits, .epoch = 2, .step = 7, .changes = ++changes};
    control_stand(s->channel[rank], &standing);
}

static void test_a_death_is_told_with_its_phase(void **state)
{
    star *s = *state;
    stand(s, 2, PHASE_DATA, false);
    clock_sleep_us(200000);
    shutdown(s->fd[2][0], SHUT_RDWR);
    expect_failure(s, 3, "rank 2 on host1 ended without a word (its connection closed), in epoch 2, step 7 (data)");
}

static void test_a_rank_that_hangs(void **state)
{
    star *s = *state;
    const phase_limits phases = {.start = 1, .step = 1, .checkpoint = 60};
    for (int r = 0; r < SIZE; r++) {
        stand(s, r, PHASE_COMPUTE, r != 1);
        control_watch(s->channel[r], &phases, 60);
    }
    expect_failure(s, 3,
                   "rank 1 on host0 hangs: no progress for 1 s, in epoch 2, step 7 (compute); a longer "
                   "dist.timeout_start allows for more");
    expect_failure(s, 1,
                   "rank 1 on host0 hangs: no progress for 1 s, in epoch 2, step 7 (compute); a longer "
                   "dist.timeout_start allows for more");
}

static void test_a_rank_that_gets_on_does_not_hang(void **state)
{
    star *s = *state;
    const phase_limits phases = {.start = 1, .step = 1, .checkpoint = 1};
    for (int r = 0; r < SIZE; r++)
        control_watch(s->channel[r], &phases, 60);
    for (int i = 0; i < 8; i++) {
        for (int r = 0; r < SIZE; r++)
            stand(s, r, i % 2 ? PHASE_COMPUTE : PHASE_EVALUATE, r == 2);
        clock_sleep_us(400000);
    }
    for (int r = 0; r < SIZE; r++) {
        assert_int_equal(control_check(s->channel[r]), 0);
        stand(s, r, PHASE_NONE, false);
    }
    assert_int_equal(control_await_failure(s->channel[0], 2000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_goodbye_is_no_failure, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_lost_connection, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_lost_centre, connect_star, close_star),
        cmocka_unit_test_setup_teardown(test_last_words, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_a_signal_is_passed_on, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_last_words_of_the_centre, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_suspended_job, connect_star, close_star),
        cmocka_unit_test_setup_teardown(test_no_last_resort, connect_star, close_star),
        cmocka_unit_test_setup_teardown(test_last_resort, connect_star, close_star),
        cmocka_unit_test(test_time_limit),
        cmocka_unit_test_setup_teardown(test_garbage, open_star, close_star),
        cmocka_unit_test(test_nobody_answers),
        cmocka_unit_test(test_more_strangers_than_places),
        cmocka_unit_test(test_addresses_that_lead_nowhere),
        cmocka_unit_test(test_ipv6_alone),
        cmocka_unit_test_setup_teardown(test_a_death_is_told_with_its_phase, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_a_rank_that_hangs, open_star, close_star),
        cmocka_unit_test_setup_teardown(test_a_rank_that_gets_on_does_not_hang, open_star, close_star),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
