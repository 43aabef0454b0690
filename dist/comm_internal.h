/* What the two kinds of communicator share. */
#ifndef TESKD_DIST_COMM_INTERNAL_H
#define TESKD_DIST_COMM_INTERNAL_H

#include "comm.h"
#include "rendezvous.h"

enum { COMM_TEXT_BYTES = 2048 };

/* As the functions of comm.h; arguments are checked already. */
typedef struct {
    int (*all_reduce_start)(comm *c, void *data, size_t count, comm_dtype type, comm_request *request);
    int (*wait)(comm *c, comm_request *request);
    int (*progress)(comm *c);
    int (*broadcast)(comm *c, void *data, size_t bytes, int root);
    int (*barrier)(comm *c);
    int (*all_gather)(comm *c, const void *data, size_t bytes, void *all);
    int (*split)(comm *c, int group, comm **out);
    bool (*peer_failed)(const comm *c);
    int (*peer_code)(const comm *c);
    void (*abort)(comm *c, int code, const char *text); /* tell the peers */
    void (*await_abort)(comm *c);                       /* wait a moment for a peer to tell */
    void (*stand)(comm *c);                             /* tell the peers of c->standing; NULL: there are none */
    void (*watch)(comm *c, const phase_limits *limits, double silence_seconds); /* NULL likewise */
    void (*close)(comm *c);
} comm_ops;

/* First member of each kind. */
struct comm {
    const comm_ops *ops;
    comm_info info;
    comm_limits limits;
    bool has_left_thread;
    rank_standing standing;
    double standing_since; /* when its phase began */
    phase_seconds spent;
    void (*entered)(void *context, const rank_standing *now);
    void *entered_context;
    char host[HOST_BYTES];
    int agreed_rank; /* where the last failed comm_agree had its cause; -1: none has failed */
    char agreed_text[COMM_TEXT_BYTES];
};

/* Around a wait for other ranks: it counts as all_reduce where this rank is to compute. */
void comm_begin_wait(comm *c);
void comm_end_wait(comm *c);

void comm_name_host(char host[HOST_BYTES]);

int comm_open_mpi(comm **out, const comm_limits *limits);

#endif
