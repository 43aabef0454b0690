/* The rules of the loss scale and of skipped steps, on any backend. Test code: failures end the test. */
#ifndef TESKD_TESTS_SKIP_CHECK_H
#define TESKD_TESTS_SKIP_CHECK_H

#include "kernels/backend.h"

/* A sum of squares that is not finite halves the scale and gives NaN; 2000 good ones in a row double it; both have
 * their ends. An update with NaN changes nothing. */
void check_skipped_steps(backend *b);

#endif
