/* The test images through the network, each exactly once over all ranks. */
#ifndef TESKD_TRAIN_EVALUATE_H
#define TESKD_TRAIN_EVALUATE_H

#include "session/feed.h"
#include "train/metrics.h"
#include "train/predictions.h"

/* Fills means over the whole test set, the same on every rank. The feed is the one of the test set. ERROR_STOPPED, on
 * every rank, when a signal came (train/signals.h); it is looked for between the batches.
 * With eval.flip each image goes through the network twice, the second time mirrored. Top-1, top-5 and cross entropy
 * are then those of the averaged class probabilities (softmax), the students' losses the mean of both. */
int evaluate(session *e, feed *batches, metrics *mean);

/* The same; the teacher's answer on every image goes to `out`, if it is not NULL. With eval.flip there are two sets
 * of logits, so `out` must not want any. */
int evaluate_images(session *e, feed *batches, predictions *out, metrics *mean);

#endif
