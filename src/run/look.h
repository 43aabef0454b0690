/* The search for the node whose result was the first that is not finite. */
#ifndef TESKD_RUN_LOOK_H
#define TESKD_RUN_LOOK_H

#include "run/program.h"

/* A value that is not finite. `node` NULL: none was found. */
typedef struct {
    const graph_node *node; /* of the program; wrote the value */
    uint32_t index;         /* of the node; of a sum over the ranks, of the first node that reads it */
    bool summed;            /* a gradient that was finite on every rank: the sum over the ranks is not */
    int64_t values, bad;    /* of the result; not finite among them */
    int32_t images;         /* that the result is of; 0: it is of the whole batch */
    int32_t bad_images;     /* with such a value */
    int32_t worst_image;    /* with the most of them, of several the first */
} not_finite;

/* Runs the program once more, with what is in its inputs, and looks at every result right after its launch. Changes
 * what a run changes. Every rank calls it: each runs to the end, since the others wait for its sums. */
int program_look(runtime *r, program *p, not_finite *found);

/* Runs nothing: looks at what updates have made of parameters and their states. */
int program_look_at_updates(const runtime *r, const program *p, not_finite *found);

#endif
