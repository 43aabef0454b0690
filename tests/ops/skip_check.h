/* The rules of the loss scale, of skipped steps and of values that are not finite, on any backend. Test code: failures
 * end the test. */
#ifndef TESKD_TESTS_SKIP_CHECK_H
#define TESKD_TESTS_SKIP_CHECK_H

#include "kernels/backend.h"

/* A sum of squares that is not finite halves the scale, gives NaN and counts, in all and in a row; 2000 good ones in a
 * row double it; both have their ends. An update with NaN changes nothing. */
void check_skipped_steps(backend *b);

/* A sum of squares that is not finite makes the clipping factor NaN; a watch counts what is not finite and nothing
 * else; sums that are not finite leave their channel's running statistics alone, a count of 1 leaves them finite; a NaN
 * is a window's maximum and gets its gradient. */
void check_not_finite(backend *b);

#endif
