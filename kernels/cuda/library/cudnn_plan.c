/* Owns the choice among cuDNN's engines. Invariant: a plan that is handed out obeys the rules it was asked for with.
 * One thread per scope. */
#include "cudnn_plan.h"
#include "base/error.h"

#include <stdlib.h>

/* Of a heuristic, far more than are timed; and of an engine, before all others of it. */
enum { MAX_CONFIGS = 64, FIRST_OF_ENGINE = 3 };

/* Plans that need more than this are for where there are few others: the workspace is the largest of all plans. */
static const size_t modest_workspace = (size_t)256 << 20;
enum { FEW = 6 };

typedef struct {
    bool note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    bool run_time_compiled;
    int64_t engine; /* -1 where unknown */
} engine_notes;

static void read_notes(cudnn_scope *s, cudnnBackendDescriptor_t config, engine_notes *notes)
{
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t found = 0;
    *notes = (engine_notes){.engine = -1};
    cudnnBackendDescriptor_t engine = cudnn_new(s, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (s->status < 0)
        return;
    s->status = cudnn_check(s->api,
                            s->api->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &found, &engine),
                            "engine of a cuDNN configuration");
    if (s->status < 0)
        return;
    if (s->api->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                         CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &found, numerical) == CUDNN_STATUS_SUCCESS)
        for (int64_t i = 0; i < found && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++)
            if ((unsigned)numerical[i] < CUDNN_NUMERICAL_NOTE_TYPE_COUNT)
                notes->note[numerical[i]] = true;
    if (s->api->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                         CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &found, behavior) == CUDNN_STATUS_SUCCESS)
        for (int64_t i = 0; i < found && i < CUDNN_BEHAVIOR_NOTE_TYPE_COUNT; i++)
            notes->run_time_compiled |= behavior[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    s->api->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &found,
                                     &notes->engine);
}

/* Winograd and FFT round differently from a sum of products, and reduced-precision sums lose bits: all are refused. */
static bool is_allowed(const engine_notes *notes, const cudnn_rules *rules)
{
    static const cudnnBackendNumericalNote_t refused[] = {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
                                                          CUDNN_NUMERICAL_NOTE_FFT, CUDNN_NUMERICAL_NOTE_WINOGRAD};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (notes->note[refused[i]])
            return false;
    if (rules->deterministic && notes->note[CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC])
        return false;
    if (rules->unnoted)
        return rules->tensor_cores;
    if (notes->note[CUDNN_NUMERICAL_NOTE_TENSOR_CORE])
        return rules->tensor_cores;
    return !rules->only_tensor_cores && !notes->note[CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS];
}

/* The engine configurations of one heuristic, by its order; returns how many. None is no failure. */
static int ask_heuristic(cudnn_scope *s, cudnnBackendDescriptor_t graph, const cudnn_rules *rules,
                         cudnnBackendHeurMode_t mode, cudnnBackendDescriptor_t configs[MAX_CONFIGS])
{
    int64_t found = 0;
    cudnnBackendDescriptor_t heuristic = cudnn_new(s, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    cudnn_set_descriptor(s, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    cudnn_set(s, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    cudnn_set_descriptor(s, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, rules->device);
    for (int i = 0; i < MAX_CONFIGS; i++)
        configs[i] = cudnn_new(s, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (s->status < 0)
        return s->status;
    if (s->api->cudnnBackendFinalize(heuristic) != CUDNN_STATUS_SUCCESS)
        return 0;
    if (s->api->cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                         MAX_CONFIGS, &found, configs) != CUDNN_STATUS_SUCCESS)
        return 0;
    return found < MAX_CONFIGS ? (int)found : MAX_CONFIGS;
}

static int finish_plan(cudnn_scope *s, const cudnn_rules *rules, cudnn_plan *plan)
{
    int64_t workspace = 0, found = 0;
    cudnn_finalize(s, plan->descriptor, "cuDNN plan");
    if (s->status == 0)
        s->status =
            cudnn_check(s->api,
                        s->api->cudnnBackendGetAttribute(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                         CUDNN_TYPE_INT64, 1, &found, &workspace),
                        "workspace of a cuDNN plan");
    TRY(cudnn_scope_status(s));
    plan->workspace = (size_t)workspace;
    CHECK(plan->workspace <= rules->workspace_limit, ERROR_KERNEL,
          "the cuDNN plan needs %.0f MiB of workspace, more than %.0f", (double)workspace / 0x1p20,
          (double)rules->workspace_limit / 0x1p20);
    return 0;
}

/* A configuration may turn out not to be supported; that is an answer. */
static int try_config(cudnn_scope *s, cudnnBackendDescriptor_t config, const cudnn_rules *rules, cudnn_plan *plan)
{
    plan->descriptor = cudnn_new(s, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    cudnn_set_descriptor(s, plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    cudnn_set_descriptor(s, plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, rules->device);
    return finish_plan(s, rules, plan);
}

typedef struct {
    int count;
    cudnnBackendDescriptor_t config[2 * MAX_CONFIGS];
    engine_notes notes[2 * MAX_CONFIGS];
    int order[2 * MAX_CONFIGS];
} candidates;

/* A heuristic's first choices can all be one engine's: the first few of each come before its others. */
static void put_in_order(candidates *c)
{
    bool early[2 * MAX_CONFIGS];
    int placed = 0;
    for (int i = 0; i < c->count; i++) {
        int before = 0;
        for (int k = 0; k < i; k++)
            before += c->notes[k].engine == c->notes[i].engine;
        early[i] = before < FIRST_OF_ENGINE;
        if (early[i])
            c->order[placed++] = i;
    }
    for (int i = 0; i < c->count; i++)
        if (!early[i])
            c->order[placed++] = i;
}

static int collect(cudnn_scope *s, cudnnBackendDescriptor_t graph, const cudnn_rules *rules, candidates *c)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    c->count = 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        int count = ask_heuristic(s, graph, rules, modes[i], &c->config[c->count]);
        TRY(count);
        c->count += count;
    }
    for (int i = 0; i < c->count; i++)
        read_notes(s, c->config[i], &c->notes[i]);
    put_in_order(c);
    return cudnn_scope_status(s);
}

typedef struct {
    bool tensor_cores, compiled;
} engine_kind;

static bool is_of(const engine_notes *notes, const cudnn_rules *rules, engine_kind kind)
{
    bool tensor_cores = rules->unnoted || notes->note[CUDNN_NUMERICAL_NOTE_TENSOR_CORE];
    return tensor_cores == kind.tensor_cores && notes->run_time_compiled == kind.compiled && is_allowed(notes, rules);
}

/* Tries the configurations of one kind; plans of at most `above` bytes of workspace are known already. */
static int try_candidates(cudnn_scope *s, const candidates *c, const cudnn_rules *rules, engine_kind kind, size_t above,
                          int wanted, cudnn_plan *plans)
{
    int found = 0;
    for (int k = 0; k < c->count && found < wanted; k++) {
        int i = c->order[k];
        cudnn_plan plan = {
            .config = c->config[i], .tensor_cores = kind.tensor_cores, .run_time_compiled = kind.compiled};
        if (is_of(&c->notes[i], rules, kind) && try_config(s, c->config[i], rules, &plan) == 0 &&
            (above == 0 || plan.workspace > above))
            plans[found++] = plan;
    }
    return found;
}

static int try_kind(cudnn_scope *s, const candidates *c, const cudnn_rules *rules, engine_kind kind, int wanted,
                    cudnn_plan *plans)
{
    cudnn_rules modest = *rules;
    modest.workspace_limit = modest_workspace < rules->workspace_limit ? modest_workspace : rules->workspace_limit;
    int found = try_candidates(s, c, &modest, kind, 0, wanted, plans);
    int few = wanted < FEW ? wanted : FEW;
    if (modest.workspace_limit < rules->workspace_limit && found < few)
        found += try_candidates(s, c, rules, kind, modest.workspace_limit, few - found, plans + found);
    return found;
}

int cudnn_plan_find(cudnn_scope *s, cudnnBackendDescriptor_t graph, const cudnn_rules *rules, int wanted,
                    cudnn_plan *plans)
{
    static const engine_kind kinds[] = {{true, false}, {true, true}, {false, false}, {false, true}};
    candidates c;
    int found = 0;
    TRY(collect(s, graph, rules, &c));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int most = wanted - found;
        if (kinds[i].compiled)
            most = found > 0 ? 0 : rules->compiled < wanted ? rules->compiled : wanted;
        found += try_kind(s, &c, rules, kinds[i], most, plans + found);
    }
    CHECK(found > 0, ERROR_KERNEL, "none of cuDNN's %d configurations will do (%s%s%.0f MiB of workspace)", c.count,
          rules->only_tensor_cores ? "tensor cores, " : "", rules->deterministic ? "deterministic, " : "",
          (double)rules->workspace_limit / 0x1p20);
    return found;
}

int cudnn_plan_save(cudnn_scope *s, const cudnn_plan *plan, char **text, size_t *bytes)
{
    int64_t size = 0;
    TRY(cudnn_check(s->api,
                    s->api->cudnnBackendGetAttribute(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                                     CUDNN_TYPE_CHAR, 0, &size, NULL),
                    "size of a cuDNN plan's text"));
    char *json = malloc((size_t)size + 1);
    CHECK(json, ERROR_MEMORY, "no memory for a cuDNN plan of %lld bytes", (long long)size);
    int code =
        cudnn_check(s->api,
                    s->api->cudnnBackendGetAttribute(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                                     CUDNN_TYPE_CHAR, size, &size, json),
                    "text of a cuDNN plan");
    if (code < 0) {
        free(json);
        return code;
    }
    *text = json;
    *bytes = (size_t)size;
    return 0;
}

int cudnn_plan_load(cudnn_scope *s, const cudnn_rules *rules, const char *text, size_t bytes, cudnn_plan *plan)
{
    *plan = (cudnn_plan){.descriptor = cudnn_new(s, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)};
    cudnn_set_descriptor(s, plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, rules->device);
    cudnn_set(s, plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)bytes,
              text);
    return finish_plan(s, rules, plan);
}

int cudnn_plan_remake(cudnn_scope *s, const cudnn_rules *rules, cudnn_plan *plan)
{
    char *text;
    size_t bytes;
    cudnn_plan remade;
    TRY(cudnn_plan_save(s, plan, &text, &bytes));
    int code = cudnn_plan_load(s, rules, text, bytes, &remade);
    free(text);
    if (code == 0)
        plan->descriptor = remade.descriptor;
    return code;
}
