/* Small text functions shared by the settings, the log and the metrics. */
#ifndef TESKD_BASE_TEXT_H
#define TESKD_BASE_TEXT_H

enum { TEXT_DOUBLE_BYTES = 32 };

/* The shortest decimal text that reads back as the same double. */
void text_from_double(double value, char out[TEXT_DOUBLE_BYTES]);

/* Least number of inserted, removed or replaced characters that turns `a` into `b`; only the first 63 of each count. */
int text_distance(const char *a, const char *b);

/* Cuts white space off both ends in place; returns the new beginning. */
char *text_trim(char *text);

#endif
