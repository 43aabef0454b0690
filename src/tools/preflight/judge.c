/* Owns the comparison of ranks. Invariant: it goes by the findings alone, so all ranks judge alike. No state. */
#include "base/error.h"
#include "base/order.h"
#include "tools/preflight/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double preflight_typical(double *values, int count, bool more_is_better)
{
    int n = 0;
    for (int i = 0; i < count; i++)
        if (!isnan(values[i]))
            values[n++] = values[i];
    if (n == 0)
        return NAN;
    qsort(values, (size_t)n, sizeof *values, order_doubles);
    return values[more_is_better ? n / 2 : (n - 1) / 2];
}

/* What was found already stays: a check may have seen a fault of its own. */
static void add_problem(const preflight_check *check, finding *f, const char *problem)
{
    const size_t used = strlen(f->problem);
    snprintf(f->problem + used, sizeof f->problem - used, "%s%s", used ? "; " : "", problem);
    if (f->verdict != VERDICT_FAULT)
        f->verdict = check->only_note ? VERDICT_NOTE : VERDICT_FAULT;
}

static bool was_found(const finding *f)
{
    return f->verdict != VERDICT_NONE && f->text[0];
}

/* The first of the ranks that found what most found. */
static int most_common(const finding *found, int ranks)
{
    int best = -1, most = 0;
    for (int i = 0; i < ranks; i++) {
        int same = 0;
        for (int k = 0; k < ranks && was_found(&found[i]); k++)
            same += was_found(&found[k]) && strcmp(found[i].text, found[k].text) == 0;
        if (same > most) {
            most = same;
            best = i;
        }
    }
    return best;
}

static void compare_texts(const preflight_check *check, finding *found, int ranks)
{
    char problem[FINDING_PROBLEM_BYTES];
    const int common = most_common(found, ranks);
    for (int rank = 0; rank < ranks && common >= 0; rank++) {
        if (!was_found(&found[rank]) || strcmp(found[rank].text, found[common].text) == 0)
            continue;
        snprintf(problem, sizeof problem, "rank %d has another: %s", common, found[common].text);
        add_problem(check, &found[rank], problem);
    }
}

static bool is_off(const preflight_check *check, double value, double typical)
{
    switch (check->compare) {
    case COMPARE_MORE:
        return value < check->limit * typical;
    case COMPARE_LESS:
        return value > check->limit * typical;
    default:
        return fabs(value - typical) > check->limit;
    }
}

static void compare_values(const preflight_check *check, finding *found, int ranks, double typical)
{
    const char *bound[] = {[COMPARE_MORE] = "at least", [COMPARE_LESS] = "at most", [COMPARE_NEAR] = "about"};
    for (int rank = 0; rank < ranks; rank++) {
        char problem[128];
        if (isnan(typical) || isnan(found[rank].value) || !is_off(check, found[rank].value, typical))
            continue;
        snprintf(problem, sizeof problem, "half of the hosts have %s %.4g %s", bound[check->compare], typical,
                 check->unit);
        add_problem(check, &found[rank], problem);
    }
}

int preflight_judge(const preflight_check *check, finding *found, int ranks)
{
    if (check->compare == COMPARE_TEXT)
        compare_texts(check, found, ranks);
    if (check->compare == COMPARE_TEXT || check->compare == COMPARE_NOTHING)
        return 0;
    double *values = malloc((size_t)ranks * sizeof *values);
    CHECK(values, ERROR_MEMORY, "no memory for the values of %d ranks", ranks);
    for (int rank = 0; rank < ranks; rank++)
        values[rank] = found[rank].value;
    compare_values(check, found, ranks, preflight_typical(values, ranks, check->compare == COMPARE_MORE));
    free(values);
    return 0;
}
