/* Small text functions shared by the settings, the log and the metrics. */
#ifndef TESKD_BASE_TEXT_H
#define TESKD_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

enum { TEXT_DOUBLE_BYTES = 32 };

/* The shortest decimal text that reads back as the same double. */
void text_from_double(double value, char out[TEXT_DOUBLE_BYTES]);

/* Least number of inserted, removed or replaced characters that turns `a` into `b`; only the first 63 of each count. */
int text_distance(const char *a, const char *b);

/* Cuts white space off both ends in place; returns the new beginning. */
char *text_trim(char *text);

/* Bytes of the UTF-8 character at `text` and, unless it is NULL, its code; 0 when there is none. */
int text_utf8_length(const char *text, uint32_t *code);

/* Copies as much of `text` as there is room for, as a terminal may show it, whoever wrote it. Bytes that are no UTF-8
 * or that steer the terminal (controls, line ends, changes of direction) become "\xNN". Doing it twice changes nothing.
 */
void text_printable(const char *text, char *out, size_t bytes);

#endif
