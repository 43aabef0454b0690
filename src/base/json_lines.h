/* A file of one JSON object per line, only ever appended to (metrics.jsonl).
 *
 * json_begin, any number of members, json_end; the line is in the file when json_end returns. One thread at a time.
 */
#ifndef TESKD_BASE_JSON_LINES_H
#define TESKD_BASE_JSON_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
    FILE *file;
    char *path;
    bool empty;   /* the object begun has no member yet */
    bool goes_on; /* the file had lines when it was opened */
} json_lines;

/* Opens or makes the file, which has to be a regular one and no link. A last line without its end, which a killed run
 * was writing, is cut off. ERROR_FILE names the path; nothing is held then. */
int json_open(json_lines *json, const char *path);

void json_begin(json_lines *json);

/* Members. A number that JSON lacks (NaN, infinity) becomes null, bytes that are no UTF-8 become U+FFFD. */
void json_number(json_lines *json, const char *key, double value);
void json_integer(json_lines *json, const char *key, int64_t value);
void json_text(json_lines *json, const char *key, const char *value);
void json_numbers(json_lines *json, const char *key, const double *values, size_t count);

/* Ends the line and hands it to the system. ERROR_FILE when that, or a member before it, could not be written. */
int json_end(json_lines *json);

/* Frees everything, also on error. A zeroed `json` is fine. */
int json_close(json_lines *json);

#endif
