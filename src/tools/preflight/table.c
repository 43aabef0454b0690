/* Owns how a preflight is printed: the table for people, the line of JSON for scripts. No state. */
#include "base/error.h"
#include "tools/preflight/check.h"

#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SHOWN_RANKS = 16, LABEL_BYTES = HOST_NAME_BYTES + 16 };

static const char *const verdict_names[] = {
    [VERDICT_NONE] = "none", [VERDICT_FINE] = "fine", [VERDICT_NOTE] = "note", [VERDICT_FAULT] = "fault"};

/* ---- one check ---- */

static void label_of(const preflight *p, int rank, char label[LABEL_BYTES])
{
    if (p->places[rank].leader == rank)
        snprintf(label, LABEL_BYTES, "%s", p->places[rank].host);
    else
        snprintf(label, LABEL_BYTES, "%s rank %d", p->places[rank].host, rank);
}

static void print_line(const preflight *p, const char *name, const char *label, const finding *f)
{
    static const char *const marks[] = {"", "", "note: ", "FAULT: "};
    log_info(p->log, "%-10s %-12s %s%s%s%s", name, label, f->text, f->problem[0] && f->text[0] ? "  " : "",
             f->problem[0] ? marks[f->verdict] : "", f->problem);
}

/* How many ranks found something, and whether all found the same and nothing wrong. */
static int count_found(const finding *found, int ranks, bool *is_same)
{
    int count = 0, first = -1;
    *is_same = true;
    for (int rank = 0; rank < ranks; rank++) {
        if (found[rank].verdict == VERDICT_NONE)
            continue;
        first = first < 0 ? rank : first;
        count++;
        *is_same = *is_same && found[rank].verdict == VERDICT_FINE && strcmp(found[rank].text, found[first].text) == 0;
    }
    return count;
}

/* Of many ranks those with the least and the greatest value are shown, and all with a problem. */
static bool is_shown(const preflight_check *check, const finding *found, int ranks, int rank)
{
    bool is_least = true, is_greatest = true;
    if (found[rank].problem[0] || isnan(found[rank].value))
        return found[rank].problem[0];
    for (int k = 0; k < ranks; k++) {
        is_least = is_least && !(found[k].value < found[rank].value);
        is_greatest = is_greatest && !(found[k].value > found[rank].value);
    }
    return check->unit && (is_least || is_greatest);
}

static void print_check(const preflight *p, const preflight_check *check, const finding *found)
{
    bool is_same;
    const int ranks = p->info->size, count = count_found(found, ranks, &is_same);
    const char *name = check->name;
    for (int rank = 0, printed = 0; rank < ranks; rank++) {
        char label[LABEL_BYTES];
        if (found[rank].verdict == VERDICT_NONE || (is_same && printed > 0))
            continue;
        if (count > SHOWN_RANKS && !is_same && !is_shown(check, found, ranks, rank))
            continue;
        label_of(p, rank, label);
        print_line(p, name, is_same && count > 1 ? "all" : label, &found[rank]);
        name = "";
        printed++;
    }
}

/* ---- all-reduces ---- */

double preflight_sum_rate(const sum_curve *curve, int size)
{
    return 2.0 * (curve->ranks - 1) / curve->ranks * (double)preflight_sizes[size] / curve->seconds[size] / 1e6;
}

static void size_text(size_t bytes, char text[32])
{
    const bool large = bytes >= (size_t)1 << 20;
    snprintf(text, 32, "%zu %s", large ? bytes >> 20 : bytes >> 10, large ? "MiB" : "KiB");
}

static void print_curve(const preflight *p, const sum_curve *curve)
{
    char times[128] = "", rates[128] = "";
    for (int i = 0; i < curve->measured; i++) {
        snprintf(times + strlen(times), sizeof times - strlen(times), " %10.4g", 1e3 * curve->seconds[i]);
        snprintf(rates + strlen(rates), sizeof rates - strlen(rates), " %10.4g", preflight_sum_rate(curve, i));
    }
    log_info(p->log, "%s: %d ranks, %s", curve->among, curve->ranks, curve->way);
    log_info(p->log, "  %-8s %s", "ms", times);
    log_info(p->log, "  %-8s %s", "MB/s", rates);
}

static void print_curves(const preflight *p)
{
    char sizes[128] = "", text[32];
    for (int i = 0; i < PREFLIGHT_SIZES; i++) {
        size_text(preflight_sizes[i], text);
        snprintf(sizes + strlen(sizes), sizeof sizes - strlen(sizes), " %10s", text);
    }
    if (p->info->size > 1)
        log_info(p->log, "%-10s %s", "all-reduce", sizes);
    for (int i = 0; i < SUM_GROUPS; i++)
        if (p->network.sums[i].among)
            print_curve(p, &p->network.sums[i]);
}

void preflight_print(const preflight *p, const preflight_check *checks, int n_checks, const finding *found)
{
    int faults = 0;
    log_info(p->log, "preflight: %d rank%s on %d host%s, %s", p->info->size, p->info->size == 1 ? "" : "s", p->hosts,
             p->hosts == 1 ? "" : "s", p->info->library);
    for (int i = 0; i < n_checks; i++)
        print_check(p, &checks[i], &found[i * p->info->size]);
    print_curves(p);
    for (int i = 0; i < n_checks * p->info->size; i++)
        faults += found[i].verdict == VERDICT_FAULT;
    if (faults == 0)
        log_info(p->log, "ready: no fault found");
}

/* ---- JSON ---- */

static json_object *json_of(const preflight *p, const preflight_check *check, const finding *f, int rank)
{
    json_object *o = json_object_new_object();
    json_object_object_add(o, "check", json_object_new_string(check->name));
    json_object_object_add(o, "rank", json_object_new_int(rank));
    json_object_object_add(o, "host", json_object_new_string(p->places[rank].host));
    json_object_object_add(o, "verdict", json_object_new_string(verdict_names[f->verdict]));
    json_object_object_add(o, "text", json_object_new_string(f->text));
    if (!isnan(f->value)) {
        json_object_object_add(o, "value", json_object_new_double(f->value));
        json_object_object_add(o, "unit", json_object_new_string(check->unit));
    }
    if (f->problem[0])
        json_object_object_add(o, "problem", json_object_new_string(f->problem));
    return o;
}

static void add_curve(json_object *list, const sum_curve *curve)
{
    for (int i = 0; i < curve->measured; i++) {
        json_object *o = json_object_new_object();
        json_object_object_add(o, "among", json_object_new_string(curve->among));
        json_object_object_add(o, "ranks", json_object_new_int(curve->ranks));
        json_object_object_add(o, "way", json_object_new_string(curve->way));
        json_object_object_add(o, "bytes", json_object_new_int64((int64_t)preflight_sizes[i]));
        json_object_object_add(o, "seconds", json_object_new_double(curve->seconds[i]));
        json_object_object_add(o, "mb_per_second", json_object_new_double(preflight_sum_rate(curve, i)));
        json_object_array_add(list, o);
    }
}

int preflight_print_json(const preflight *p, const preflight_check *checks, int n_checks, const finding *found)
{
    json_object *all = json_object_new_object(), *list = json_object_new_array(), *sums = json_object_new_array();
    int faults = 0;
    for (int i = 0; i < n_checks; i++)
        for (int rank = 0; rank < p->info->size; rank++) {
            const finding *f = &found[i * p->info->size + rank];
            faults += f->verdict == VERDICT_FAULT;
            if (f->verdict != VERDICT_NONE)
                json_object_array_add(list, json_of(p, &checks[i], f, rank));
        }
    for (int i = 0; i < SUM_GROUPS; i++)
        if (p->network.sums[i].among)
            add_curve(sums, &p->network.sums[i]);
    json_object_object_add(all, "ranks", json_object_new_int(p->info->size));
    json_object_object_add(all, "hosts", json_object_new_int(p->hosts));
    json_object_object_add(all, "faults", json_object_new_int(faults));
    json_object_object_add(all, "findings", list);
    json_object_object_add(all, "all_reduce", sums);
    const char *text = json_object_to_json_string_ext(all, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    const int printed = text ? fprintf(p->log->out, "%s\n", text) : -1;
    json_object_put(all);
    CHECK(text, ERROR_MEMORY, "no memory for the line of JSON");
    (void)printed; /* log_close tells */
    return 0;
}
