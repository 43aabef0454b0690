/* What the planning, its report and its advice share. */
#ifndef TESKD_TOOLS_PLAN_PRIVATE_H
#define TESKD_TOOLS_PLAN_PRIVATE_H

#include "tools/plan/plan.h"
#include "tools/plan/step.h"

enum { PLAN_ROWS = 40 };

/* The cluster with so many of its nodes. */
typedef struct {
    int64_t nodes, gpus, batch; /* of all nodes */
    plan_time time;
    double images_per_second, efficiency, epoch_seconds;
    double storage, cores; /* of a node: bytes read per second, and cores that decode */
} plan_row;

typedef struct {
    const settings *config;
    const plan_options *options;
    plan_request request;
    plan_step step;
    plan_cluster cluster; /* of all nodes */
    plan_row rows[PLAN_ROWS];
    int n_rows; /* the last one is all nodes */
} planned;

/* A step of the settings, with the time that the options say. */
int plan_make_step(plan_step *step, const settings *config, const plan_options *options, const plan_request *request);

/* As many of the cluster's nodes. */
plan_row plan_row_of(const planned *p, int64_t nodes);

void plan_print_tables(const planned *p, logger *log);
void plan_print_json(const planned *p, FILE *out);

/* Prints what the batch needs and what would raise the efficiency of all nodes. */
int plan_print_advice(const planned *p, logger *log);

/* What published runs on ImageNet with so large a batch did. */
const char *plan_recipe(int64_t batch);

#endif
