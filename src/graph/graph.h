/* The step graph and its builder.
 *
 * A graph is two arrays: values and nodes. Nodes are in execution order and every value is written before it
 * is read. Builder calls are chained without checks: the first failure is kept in `status` with its message. Every
 * later call does nothing and returns VALUE_NONE; look at graph_status once, at the end.
 */
#ifndef TESKD_GRAPH_GRAPH_H
#define TESKD_GRAPH_GRAPH_H

#include "graph/node.h"

#include <stdio.h>

typedef struct {
    tensor_desc desc;
    bool keep;      /* read by the host after the step: lives to its end */
    value_id whole; /* the value that this one's memory is a part of, from `whole_channel` on */
    int32_t whole_channel;
    char name[GRAPH_NAME_BYTES]; /* parameters, states, inputs, outputs; else empty */
} graph_value;

typedef struct {
    dtype real; /* of every real value: the backend's */
    uint32_t n_values, n_nodes;
    uint32_t values_capacity, nodes_capacity;
    graph_value *values; /* values[0] is VALUE_NONE */
    graph_node *nodes;
    char scope[GRAPH_NAME_BYTES]; /* label of the nodes that come next */
    int status;
    char failure[512];
} graph;

void graph_init(graph *g, dtype real);
void graph_free(graph *g);

/* 0, or the first failure's code with its message set for this thread. */
int graph_status(const graph *g);

/* Records a failure unless there is one already. */
void graph_fail(graph *g, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Label of the nodes that follow, e.g. "layer1.0.conv1". Longer names are cut. */
void graph_scope(graph *g, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A new value; `name` may be NULL. */
value_id graph_value_new(graph *g, tensor_desc desc, const char *name);

value_id graph_input(graph *g, const char *name, uint8_t type, const int32_t dim[4]);
value_id graph_parameter(graph *g, const char *name, tensor_layout layout, const int32_t dim[4]);
/* A float vector of the program's real dtype that outlives it, e.g. running_mean. */
value_id graph_state(graph *g, const char *name, tensor_layout layout, const int32_t dim[4]);

/* Adds a forward node whose output shape follows from its inputs; returns its output (VALUE_NONE if it has none). */
value_id graph_apply(graph *g, op_id op, const op_attr *attr, int n_in, const value_id *in);

/* Adds a node that writes the given values. Trailing absent inputs are dropped. */
void graph_emit(graph *g, op_id op, const op_attr *attr, int n_in, const value_id *in, int n_out, const value_id *out);

/* Marks a value as a result of the step, under a name to find it by. */
void graph_keep(graph *g, value_id value, const char *name);

/* The value of that name, or VALUE_NONE. */
value_id graph_find(const graph *g, const char *name);

const tensor_desc *graph_desc(const graph *g, value_id value);

/* How many node inputs read the value. */
uint32_t graph_count_uses(const graph *g, value_id value);

/* Multiply-adds of a node that is a convolution or a matrix product (0 for the others). */
double graph_node_macs(const graph *g, const graph_node *node);

/* Appends the backward of every loss with a positive weight: the gradient of their weighted sum with respect to
 * each parameter, named "gradient/<parameter>" and of KIND_GRADIENT. With sync_bn the sums of batch
 * normalisation's backward are reduced over the ranks. */
void graph_backward(graph *g, bool sync_bn);

/* A step may be computed in micro-batches, one program each, whose gradients are added up in states
 * "accumulated/<parameter>".
 */
typedef enum {
    MICRO_BATCH_WHOLE,  /* the step is one */
    MICRO_BATCH_FIRST,  /* its gradients become the accumulated ones */
    MICRO_BATCH_MIDDLE, /* its gradients are added to them */
    MICRO_BATCH_LAST    /* the gradients are the sum of its own and the accumulated ones */
} micro_batch_place;

/* After graph_backward: directs the gradients of such a micro-batch. Only MICRO_BATCH_WHOLE and MICRO_BATCH_LAST have
 * gradients to update with. */
void graph_accumulate(graph *g, micro_batch_place place);

/* Appends one sgd_update for each parameter that has a gradient, with its state "momentum/<parameter>" and the
 * input "lr". Vectors (biases, batch normalisation) decay only with decay_vectors. With clip_norm > 0 all gradients are
 * scaled so that their joint norm does not exceed it. Where graph_precision made a loss scale, it is divided out, and a
 * step whose gradients are not finite changes nothing; where it made copies, they follow. With ema_decay > 0 the states
 * "ema/<name>" follow the parameters and the states that are there (the running statistics). With `withholds` a step
 * whose gradients are not finite changes nothing, loss scale or none; the sum of their squares is kept as
 * GRADIENT_SQUARES.
 *
 * With lars_eta > 0 the update is LARS (You, Gitman, Ginsburg, arXiv 1708.03888): each weight that is no vector has a
 * rate of its own, "rate/<parameter>", from the norms of the weight and of its gradient, after the loss scale and the
 * clipping. Vectors have "lr". Either rate goes into the momentum, so a momentum of SGD is none of LARS. */
#define GRADIENT_SQUARES "gradient_squares"
typedef struct {
    double momentum, weight_decay, clip_norm, ema_decay;
    double lars_eta; /* 0: SGD */
    bool nesterov, decay_vectors, withholds;
} sgd_options;
void graph_sgd(graph *g, const sgd_options *options);

/* Moves the updates of running statistics and the sums of what is measured behind all other nodes: a device can make
 * one launch of each. The losses and their gradients then follow one another and can be one launch, too. */
void graph_defer_updates(graph *g);

/* How many nodes from `first` on a device may make one launch of: of one op; or losses and their gradients, none of
 * which reads what another of them writes. */
uint32_t graph_run_length(const graph *g, uint32_t first);

/* Drops every node without side effect none of whose results is read or kept. */
void graph_drop_dead(graph *g);

/* Graphviz text of the nodes and the values between them. */
void graph_dot(const graph *g, FILE *out);

#endif
