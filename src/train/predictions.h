/* The teacher's answer on every test image: a CSV file in the order of the test set, and counts by class. */
#ifndef TESKD_TRAIN_PREDICTIONS_H
#define TESKD_TRAIN_PREDICTIONS_H

#include "session/session.h"

typedef struct {
    int32_t index; /* of the image in the test set */
    int32_t label, predicted;
    int32_t ahead; /* classes beside the label that lead it or tie with it: 0 is right, up to 4 among the first five */
    double probability; /* of the predicted class */
} prediction;

typedef struct predictions predictions;

/* For the test set and the network of `e`. With a `path` rank 0 will leave the file there, with `logits` a column for
 * each of the teacher's. Every rank calls it. */
int predictions_open(predictions **out, const session *e, const char *path, bool logits);

bool predictions_want_logits(const predictions *p);

/* Takes this rank's share of one evaluation batch, in the order of the test set; every rank calls it for every batch,
 * with `count` 0 where it has no share. `logits` is [count][classes]; not read unless wanted. */
int predictions_add(predictions *p, const prediction *rows, const double *logits, int32_t count);

/* Gives the file its name, now that it is complete. Every rank calls it. */
int predictions_commit(predictions *p);

/* Prints images, top-1 and top-5 of each class that has images. Every rank calls it. */
int predictions_by_class(predictions *p, logger *log);

/* Frees; without a commit no file is left. `*p` becomes NULL and may be NULL. */
void predictions_close(predictions **p);

#endif
