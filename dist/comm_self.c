/* The communicator of one rank: every collective is the identity. No state beyond the description. */
#include "comm_internal.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static int self_all_reduce_start(comm *c, void *data, size_t count, comm_dtype type, comm_request *request)
{
    (void)c, (void)data, (void)count, (void)type;
    request->handle[0] = 1;
    return 0;
}

static int self_wait(comm *c, comm_request *request)
{
    (void)c;
    request->handle[0] = 0;
    return 0;
}

static int self_nothing(comm *c)
{
    (void)c;
    return 0;
}

static int self_broadcast(comm *c, void *data, size_t bytes, int root)
{
    (void)c, (void)data, (void)bytes, (void)root;
    return 0;
}

static int self_all_gather(comm *c, const void *data, size_t bytes, void *all)
{
    (void)c;
    if (bytes && all != data)
        memmove(all, data, bytes);
    return 0;
}

static int self_split(comm *c, int group, comm **out)
{
    (void)c;
    return group < 0 ? 0 : comm_open_self(out);
}

static bool self_peer_failed(const comm *c)
{
    (void)c;
    return false;
}

static int self_peer_code(const comm *c)
{
    (void)c;
    return 0;
}

static void self_abort(comm *c, int code, const char *text)
{
    (void)c, (void)code, (void)text;
}

static void self_await_abort(comm *c)
{
    (void)c;
}

static void self_close(comm *c)
{
    free(c);
}

static const comm_ops self_ops = {
    .all_reduce_start = self_all_reduce_start,
    .wait = self_wait,
    .progress = self_nothing,
    .broadcast = self_broadcast,
    .barrier = self_nothing,
    .all_gather = self_all_gather,
    .split = self_split,
    .peer_failed = self_peer_failed,
    .peer_code = self_peer_code,
    .abort = self_abort,
    .await_abort = self_await_abort,
    .close = self_close,
};

int comm_open_self(comm **out)
{
    *out = NULL;
    comm *c = calloc(1, sizeof *c);
    CHECK(c, ERROR_MEMORY, "out of memory for a communicator");
    c->ops = &self_ops;
    c->agreed_rank = -1;
    c->limits.patience_seconds = COMM_PATIENCE_SECONDS;
    comm_name_host(c->host);
    c->info = (comm_info){.size = 1, .local_size = 1, .host = c->host, .library = "single process"};
    *out = c;
    return 0;
}
