/* Settings: what is read, what is refused and with which words, and that a dump reads back. */
#include "base/error.h"
#include "base/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Parsing `text` as the file x.ini is refused with a message that begins so, and changes nothing. */
static void refused(const char *text, const char *message)
{
    settings s, before;
    settings_default(&s);
    before = s;
    if (settings_parse_text(&s, text, "x.ini") != ERROR_SETTINGS)
        fail_msg("accepted: %s", text);
    if (strncmp(error_message(), message, strlen(message)) != 0)
        fail_msg("message is '%s', expected '%s'", error_message(), message);
    assert_memory_equal(&s, &before, sizeof s);
}

static void set_refused(const char *assignment, const char *message)
{
    settings s, before;
    settings_default(&s);
    before = s;
    assert_int_equal(settings_set(&s, assignment), ERROR_SETTINGS);
    if (strncmp(error_message(), message, strlen(message)) != 0)
        fail_msg("message is '%s', expected '%s'", error_message(), message);
    assert_memory_equal(&s, &before, sizeof s);
}

static void set(settings *s, const char *assignment)
{
    if (settings_set(s, assignment) != 0)
        fail_msg("%s: %s", assignment, error_message());
}

static void defaults(void **state)
{
    (void)state;
    settings s;
    settings_default(&s);
    assert_string_equal(s.model.network, "cifarresnet18");
    assert_int_equal(s.model.method, METHOD_TESKD);
    assert_true(s.loss.temperature == 4 && s.loss.ce_weight == 0.2 && s.loss.kd_weight == 0.8);
    assert_true(s.loss.feature_weight == 1e-7 && !s.loss.kd_detach_teacher);
    assert_int_equal(s.loss.student_weights.count, 3);
    assert_true(s.loss.student_weights.value[2] == 1);
    assert_int_equal(s.train.epochs, 200);
    assert_int_equal(s.train.batch, 128);
    assert_true(s.train.lr == 0.1 && s.train.momentum == 0.9 && s.train.nesterov && s.train.weight_decay == 5e-4);
    assert_int_equal(s.train.schedule, SCHEDULE_STEP);
    assert_int_equal(s.train.milestones.count, 2);
    assert_int_equal(s.train.milestones.value[1], 150);
    assert_true(s.run.bucket_mib == 16 && s.run.first_bucket_mib == 1 && s.run.last_bucket_mib == 1 &&
                s.run.rewrite_patch && !s.run.sync_bn);
    assert_string_equal(s.output.dir, "runs/teskd");
    assert_int_equal(s.log.every, 50);
    assert_int_equal(settings_validate(&s), 0);
}

/* One key for each type; indentation, comments, both separators and a section opened twice. */
static void reads_every_type(void **state)
{
    (void)state;
    settings s;
    settings_default(&s);
    const char *text = "# a comment\n"
                       "; another\n"
                       "[train]\n"
                       "  lr = 0.025 ; inline\n"
                       "  epochs: 7\r\n"
                       "\n"
                       "nesterov=off\n"
                       "schedule = cosine\n"
                       "[data] ; a comment\n"
                       "path =   /a path/with spaces = and;this  \n"
                       "[train]\n"
                       "milestones = 3, 5 ,6\n"
                       "  [loss]# a comment\r\n"
                       "student_weights = 1,.5,2.5e-1";
    assert_int_equal(settings_parse_text(&s, text, "x.ini"), 0);
    assert_true(s.train.lr == 0.025);
    assert_int_equal(s.train.epochs, 7);
    assert_false(s.train.nesterov);
    assert_int_equal(s.train.schedule, SCHEDULE_COSINE);
    assert_string_equal(s.data.path, "/a path/with spaces = and;this");
    assert_int_equal(s.train.milestones.count, 3);
    assert_int_equal(s.train.milestones.value[1], 5);
    assert_true(s.loss.student_weights.value[1] == 0.5 && s.loss.student_weights.value[2] == 0.25);
}

static void byte_order_mark_and_empty(void **state)
{
    (void)state;
    settings s;
    settings_default(&s);
    assert_int_equal(settings_parse_text(&s, "\xef\xbb\xbf[train]\nlr = 3\n", "x.ini"), 0);
    assert_true(s.train.lr == 3);
    assert_int_equal(settings_parse_text(&s, "", "x.ini"), 0);
    assert_int_equal(settings_parse_text(&s, "[train]\nmilestones =\n", "x.ini"), 0);
    assert_int_equal(s.train.milestones.count, 0);
}

static void words_of_truth(void **state)
{
    (void)state;
    static const char *const yes[] = {"Yes", "TRUE", "on", "1"}, *const no[] = {"no", "False", "OFF", "0"};
    settings s;
    settings_default(&s);
    for (int i = 0; i < 4; i++) {
        char text[64];
        snprintf(text, sizeof text, "run.sync_bn=%s", yes[i]);
        set(&s, text);
        assert_true(s.run.sync_bn);
        snprintf(text, sizeof text, "run.sync_bn = %s ", no[i]);
        set(&s, text);
        assert_false(s.run.sync_bn);
    }
}

/* In files and assignments alike; in a file a ';' inside begins no comment. */
static void quotes_are_taken_off(void **state)
{
    (void)state;
    static const struct {
        const char *written, *read;
    } cases[] = {
        {"\"a b\"", "a b"}, {"\"  a\"", "  a"},     {"'a ;b # c'", "a ;b # c"},
        {" ';x' ", ";x"},   {"\"it's\"", "it's"},   {"'say \"x\"'", "say \"x\""},
        {"\"\"", ""},       {"a \"b\"", "a \"b\""}, {"\"a\\tb\"", "a\\tb"},
        {"it's ", "it's"},  {"\"./~x\"", "./~x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128];
        settings s;
        settings_default(&s);
        snprintf(text, sizeof text, "output.dir=%s", cases[i].written);
        set(&s, text);
        assert_string_equal(s.output.dir, cases[i].read);
        snprintf(text, sizeof text, "[output]\ndir = %s ; why, \"why\" # why\n", cases[i].written);
        if (settings_parse_text(&s, text, "x.ini") < 0)
            fail_msg("%s: %s", text, error_message());
        assert_string_equal(s.output.dir, cases[i].read);
    }
    settings s;
    settings_default(&s);
    set(&s, "train.lr='0.5'");
    set(&s, "train.nesterov=\"no\"");
    assert_true(s.train.lr == 0.5 && !s.train.nesterov);
    refused("[output]\ndir = \"a\n", "x.ini:2: output.dir: \"a: the quote is not closed");
    refused("[output]\ndir = \"a\" b\n", "x.ini:2: output.dir: 'b' stands behind the closing quote");
    set_refused("output.dir='a", "--set: output.dir: 'a: the quote is not closed");
    set_refused("output.dir='a';b", "--set: output.dir: ';b' stands behind the closing quote");
    set_refused("output.dir=it's \"x\" ;y", "--set: output.dir: 'it's \"x\" ;y' holds both kinds of quotes");
}

static void home_folders(void **state)
{
    (void)state;
    settings s;
    char *before = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    settings_default(&s);
    setenv("HOME", "/home/me", 1);
    set(&s, "output.dir=~/runs/~x");
    assert_string_equal(s.output.dir, "/home/me/runs/~x");
    set(&s, "data.path=~");
    assert_string_equal(s.data.path, "/home/me");
    set(&s, "run.plan_cache=~root/plans");
    assert_string_equal(s.run.plan_cache, "/root/plans");
    set(&s, "model.network=~"); /* no path */
    assert_string_equal(s.model.network, "~");
    assert_int_equal(settings_parse_text(&s, "[output]\ndir = \"~/a ;b\"\n", "x.ini"), 0);
    assert_string_equal(s.output.dir, "/home/me/a ;b");
    set_refused("output.dir=~nobody-here/x", "--set: output.dir: '~nobody-here': there is no such user; './~'");
    char text[SETTING_TEXT_BYTES + 32], message[128];
    snprintf(text, sizeof text, "output.dir=~/%0505d", 0);
    snprintf(message, sizeof message, "--set: output.dir: '~/%078d' is too long", 0);
    set_refused(text, message);
    if (before)
        setenv("HOME", before, 1);
    free(before);
}

static void names_from_elsewhere(void **state)
{
    (void)state;
    refused("[train]\nlearning_rate = 3\n", "x.ini:2: train.learning_rate: unknown setting; did you mean train.lr?");
    set_refused("train.wd=1", "--set: train.wd: unknown setting; did you mean train.weight_decay?");
    set_refused("weight-decay=1", "--set: weight-decay: unknown setting; did you mean train.weight_decay?");
    set_refused("data.Data_Dir=x", "--set: data.Data_Dir: unknown setting; did you mean data.path?");
    set_refused("train.learning_rat=1", "--set: train.learning_rat: unknown setting; did you mean train.lr?");
    set_refused("train.batchsize=1", "--set: train.batchsize: unknown setting; did you mean train.batch?");
    set_refused("run.fp16=yes", "--set: run.fp16: unknown setting; did you mean run.precision=fp16?");
    set_refused("run.gpus=4", "--set: run.gpus: unknown setting; each rank takes one GPU: mpirun -np N starts N ranks");
    set_refused("data.num_workers=4", "--set: data.num_workers: unknown setting; did you mean data.threads?");

    char advice[SETTING_ADVICE_BYTES];
    assert_true(setting_option_advice("lr", advice));
    assert_string_equal(advice, "did you mean --set train.lr?");
    assert_true(setting_option_advice("batch-size", advice));
    assert_string_equal(advice, "did you mean --set train.batch?");
    assert_true(setting_option_advice("train.lr", advice));
    assert_false(setting_option_advice("zzz", advice));
}

/* Every name of the table leads to settings that there are, with values that they take, and none is a setting's own. */
static void aliases_are_true(void **state)
{
    (void)state;
    static const struct {
        const char *name, *words;
    } rows[] = {
#define ALIAS(name, meant) {#name, meant},
#define ADVICE(name, words) {#name, words},
#include "../../src/base/settings_aliases.def"
#undef ALIAS
#undef ADVICE
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char words[SETTING_ADVICE_BYTES], advice[SETTING_ADVICE_BYTES], *rest = NULL;
        assert_true(setting_option_advice(rows[i].name, advice));
        if (!strstr(advice, rows[i].words))
            fail_msg("%s: '%s'", rows[i].name, advice);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(rows[i].name, rows[k].name);
        snprintf(words, sizeof words, "%s", rows[i].words);
        for (char *word = strtok_r(words, " ,()", &rest); word; word = strtok_r(NULL, " ,()", &rest)) {
            char dump[64], *dot = strchr(word, '.');
            settings s;
            settings_default(&s);
            if (!dot)
                continue;
            snprintf(dump, sizeof dump, "%s%s", word, strchr(word, '=') ? "" : "=~-no-value-~");
            if (settings_set(&s, dump) < 0 && strstr(error_message(), "unknown setting"))
                fail_msg("%s: %s", rows[i].name, error_message());
        }
    }
}

static void unknown_names(void **state)
{
    (void)state;
    refused("[train]\n\nlrr = 1\n", "x.ini:3: train.lrr: unknown setting; did you mean train.lr?");
    refused("[train]\nepoch = 1\n", "x.ini:2: train.epoch: unknown setting; did you mean train.epochs?");
    refused("[model]\nlr = 1\n", "x.ini:2: model.lr: unknown setting; did you mean train.lr?");
    refused("[eval]\nevry = 1\n", "x.ini:2: eval.evry: unknown setting; did you mean eval.every?");
    refused("[log]\nevry = 1\n", "x.ini:2: log.evry: unknown setting; did you mean log.every?");
    refused("[trian]\nlr = 1\n", "x.ini:1: [trian]: unknown section; did you mean [train]?");
    refused("[train]\nlr=1\n\n[outptu]\n", "x.ini:4: [outptu]: unknown section; did you mean [output]?");
    refused("[optimizer]\nlr = 1\n",
            "x.ini:1: [optimizer]: unknown section; the sections are [model], [loss], [train],");
    refused("[train]\nfrobnicate = 1\n",
            "x.ini:2: train.frobnicate: unknown setting; teskd train --help lists them all");
    refused("lr = 1\n", "x.ini:1: lr: unknown setting; did you mean train.lr?");
    refused("[train]\n\xff\xfe = 1\n", "x.ini:2: train.");
    set_refused("train.lrr=1", "--set: train.lrr: unknown setting; did you mean train.lr?");
    set_refused("trian.lr=1", "--set: trian.lr: unknown setting; did you mean train.lr?");
    set_refused("bucket_mb=1", "--set: bucket_mb: unknown setting; did you mean run.bucket_mib?");
}

static void wrong_values(void **state)
{
    (void)state;
    refused("[train]\nlr = fast\n",
            "x.ini:2: train.lr: 'fast' is not a number; allowed is a number from 0 to 1000 (default '0.1')");
    refused("[train]\nlr = 0.1x\n", "x.ini:2: train.lr: '0.1x' is not a number");
    refused("[train]\nlr =\n", "x.ini:2: train.lr: '' is not a number");
    refused("[train]\nlr = nan\n", "x.ini:2: train.lr: 'nan' is not a number");
    refused("[train]\nlr = inf\n", "x.ini:2: train.lr: 'inf' is out of bounds");
    refused("[train]\nlr = -1\n", "x.ini:2: train.lr: '-1' is out of bounds; allowed is a number from 0 to 1000");
    refused("[train]\nbatch = 0\n",
            "x.ini:2: train.batch: '0' is out of bounds; allowed is a whole number from 1 to 1048576 (default '128')");
    refused("[train]\nbatch = 1.5\n", "x.ini:2: train.batch: '1.5' is not a whole number");
    refused("[train]\nseed = 99999999999999999999\n", "x.ini:2: train.seed: '99999999999999999999' is out of bounds; "
                                                      "allowed is a whole number from 0 to 9007199254740991");
    refused("[train]\nnesterov = maybe\n",
            "x.ini:2: train.nesterov: 'maybe' is neither yes nor no; allowed is yes or no (default 'yes')");
    refused("[train]\nschedule = cos\n", "x.ini:2: train.schedule: 'cos' is not a known word; "
                                         "allowed is one of step, cosine, linear, constant (default 'step')");
    refused("[train]\nschedule = step|cosine\n", "x.ini:2: train.schedule: 'step|cosine' is not a known word");
    refused("[train]\nmilestones = 1,,2\n", "x.ini:2: train.milestones: '' is not a whole number");
    refused("[train]\nmilestones = 1,2,\n", "x.ini:2: train.milestones: '' is not a whole number");
    refused("[train]\nmilestones = 0,2\n", "x.ini:2: train.milestones: '0' is out of bounds");
    refused("[train]\nmilestones = 1,2,3,4,5,6,7,8,9\n",
            "x.ini:2: train.milestones: '1,2,3,4,5,6,7,8,9' has too many values; "
            "allowed is at most 8 whole numbers from 1 to 1000000, between commas (default '100,150')");
    refused("[loss]\nstudent_weights = 1,b,3\n", "x.ini:2: loss.student_weights: 'b' is not a number");
    refused("[data]\npath = a\tb\n", "x.ini:2: data.path: 'a\\x09"
                                     "b' holds a control character");
    refused("[data]\npath = a # b\n", "x.ini:2: data.path: 'a # b' holds '#' at the start or after a blank; a comment");
    refused("[data]\npath = # b\n", "x.ini:2: data.path: '# b' holds '#'");
    refused("[train]\nlr = 0.1 # fast\n", "x.ini:2: train.lr: '0.1 # fast' holds '#'");
    set_refused("train.lr", "--set: 'train.lr': expected section.key=value");
    set_refused("train.lr=", "--set: train.lr: '' is not a number");
}

static void broken_lines(void **state)
{
    (void)state;
    refused("[train]\nlr = 1\nlr = 2\n", "x.ini:3: train.lr: given twice, first on line 2");
    refused("[train]\nlr = 1\n[data]\n[train]\nlr = 1\n", "x.ini:5: train.lr: given twice, first on line 2");
    refused("[train]\nlr 1\n", "x.ini:2: expected [section] or key = value");
    refused("[train\nlr = 1\n", "x.ini:1: expected [section] or key = value");
    refused("[train]\nlr = 1\n= 3\n", "x.ini:3: train.: unknown setting");
    refused("[train] batch = 7\n",
            "x.ini:1: [train]: 'batch = 7' stands behind the section's name; it belongs on a line of its own");
    refused("[train]\rlr = 1\r", "x.ini:1: [train]: 'lr = 1' stands behind the section's name");
    refused("[data]\n[train] x", "x.ini:2: [train]: 'x' stands behind");
    refused("[train]]\nlr = 1\n", "x.ini:1: [train]: ']' stands behind");
    refused("\xef\xbb\xbf[trian]\nlr = 1\n", "x.ini:1: [trian]: unknown section");
    refused("[train]\nlr = 1\n  2\n", "x.ini:3: expected [section] or key = value");
    refused("[train]\nlr\n", "x.ini:2: expected [section] or key = value");
    refused("[train]\nlr = 1\n\xef\xbb\xbf[data]\n", "x.ini:3: expected [section] or key = value");
    refused("[train]\nlr = x\nnonsense\n[nowhere]\n", "x.ini:2: train.lr: 'x' is not a number");
    refused("[train]\nnonsense\nlr = x\n", "x.ini:2: expected [section] or key = value");
}

/* Lines beyond inih's own buffer of 200 bytes. */
static void long_lines(void **state)
{
    (void)state;
    settings s;
    settings_default(&s);
    char path[SETTING_TEXT_BYTES + 1], text[4 * SETTING_TEXT_BYTES];
    memset(path, 'p', sizeof path);
    path[SETTING_TEXT_BYTES - 1] = '\0';
    snprintf(text, sizeof text, "; %s\n[data]\npath = %s  ; why\n[train]\nlr = 3\n", path, path);
    assert_int_equal(settings_parse_text(&s, text, "x.ini"), 0);
    assert_string_equal(s.data.path, path);
    assert_true(s.train.lr == 3);

    path[SETTING_TEXT_BYTES - 1] = 'p';
    path[SETTING_TEXT_BYTES] = '\0';
    snprintf(text, sizeof text, "[data]\npath = %s\n", path);
    char message[256];
    snprintf(message, sizeof message, "x.ini:2: data.path: '%.80s' is too long; allowed are 511 bytes", path);
    refused(text, message);
    snprintf(text, sizeof text, "[data]\npath = %s%s%s\n", path, path, path);
    refused(text, "x.ini:2: data.path: the line is longer than 1023 bytes");
    snprintf(text, sizeof text, "[%s]\n", path);
    refused(text, "x.ini:1: [ppp");
    snprintf(text, sizeof text, "[data]\n%s\n", path);
    refused(text, "x.ini:2: expected [section] or key = value");
}

static void contradiction(const char *const *assignments, const char *message)
{
    settings s;
    settings_default(&s);
    for (; *assignments != NULL; assignments++)
        set(&s, *assignments);
    assert_int_equal(settings_validate(&s), ERROR_SETTINGS);
    if (strncmp(error_message(), message, strlen(message)) != 0)
        fail_msg("message is '%s', expected '%s'", error_message(), message);
}

#define CONTRADICTION(message, ...) contradiction((const char *const[]){__VA_ARGS__, NULL}, message)

static void contradictions(void **state)
{
    (void)state;
    CONTRADICTION("train.milestones: must increase, but 50 follows 100", "train.milestones=100,50");
    CONTRADICTION("train.milestones: must increase, but 5 follows 5", "train.milestones=5,5");
    CONTRADICTION("train.milestones: empty, but train.schedule = step", "train.milestones=");
    CONTRADICTION("loss.student_weights: 2 values given", "loss.student_weights=1,1");
    CONTRADICTION("loss.ce_weight, loss.kd_weight, loss.feature_weight: all are 0", "loss.ce_weight=0",
                  "loss.kd_weight=0", "loss.feature_weight=0");
    CONTRADICTION("train.nesterov: yes needs train.momentum", "train.momentum=0");
    CONTRADICTION("train.optimizer: lars leaves biases", "train.optimizer=lars");
    CONTRADICTION("train.min_lr: 0.2 is greater than train.lr = 0.1", "train.min_lr=0.2");
    CONTRADICTION("train.warmup_epochs: 5 is greater than train.epochs = 4", "train.warmup_epochs=5", "train.epochs=4");
    CONTRADICTION("run.precision: run.device = cpu computes in float32", "run.device=cpu", "run.precision=bf16");
    CONTRADICTION("run.precision: run.device = reference computes in float64", "run.device=reference",
                  "run.precision=fp32");
    CONTRADICTION("run.reduction: nccl adds up between GPUs", "run.device=cpu", "run.reduction=nccl");
    CONTRADICTION("data.drop_last: yes leaves no step", "data.drop_last=yes", "data.train_images=100");

    settings s;
    settings_default(&s);
    set(&s, "train.milestones=");
    set(&s, "train.schedule=constant");
    set(&s, "model.classes=10");
    set(&s, "data.kind=cifar10");
    assert_int_equal(settings_validate(&s), 0);
}

static void fill_with_odd_values(settings *s)
{
    static const char *const odd[] = {
        "train.lr=0.30000000000000004",
        "loss.feature_weight=1.2345678901234567e-300",
        "loss.student_weights=0.1,1e-7,333333.33333333331",
        "train.milestones=1,2,3,4,5,6,7,1000000",
        "train.seed=9007199254740991",
        "train.max_steps=1000000000000",
        "run.isa=avx512",
        "run.device=reference",
        "data.path=/some where/a=b;c:d#e [x] \xc3\xa9",
        "output.dir=' \"~x ;#'",
        "run.plan_cache=a #b",
        "train.nesterov=no",
        "model.method=plain",
    };
    settings_default(s);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        set(s, odd[i]);
}

static void dump_reads_back(void **state)
{
    (void)state;
    settings s, again;
    fill_with_odd_values(&s);
    char *text = settings_to_text(&s);
    assert_non_null(text);
    settings_default(&again);
    if (settings_parse_text(&again, text, "dump") != 0)
        fail_msg("%s", error_message());
    assert_true(again.train.lr == 0.30000000000000004 && again.loss.feature_weight == 1.2345678901234567e-300);
    assert_string_equal(again.data.path, s.data.path);
    assert_string_equal(again.output.dir, " \"~x ;#");
    assert_string_equal(again.run.plan_cache, "a #b");
    assert_memory_equal(&again.loss.student_weights, &s.loss.student_weights, sizeof s.loss.student_weights);
    char *twice = settings_to_text(&again);
    assert_non_null(twice);
    assert_string_equal(text, twice);
    assert_non_null(strstr(text, "\nmethod = plain\n"));
    assert_non_null(strstr(text, "[train]\nepochs = 200\n"));
    assert_non_null(strstr(text, "\nbucket_mib = 16\n"));
    free(twice);
    free(text);
}

static void write_errors_are_reported(void **state)
{
    (void)state;
    settings s;
    settings_default(&s);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_int_equal(settings_write(&s, full), ERROR_FILE);
    fclose(full);
}

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void loads_files(void **state)
{
    (void)state;
    settings s;
    settings_default(&s);
    char folder[] = "/tmp/teskd_settings_XXXXXX", path[64], message[128];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.ini", folder);

    assert_int_equal(settings_load(&s, path), ERROR_FILE);
    snprintf(message, sizeof message, "%s: cannot open: No such file or directory", path);
    assert_string_equal(error_message(), message);
    assert_int_equal(settings_load(&s, folder), ERROR_FILE);

    static const char text[] = "[train]\nlr = 0.5\n";
    write_file(path, text, sizeof text - 1);
    assert_int_equal(settings_load(&s, path), 0);
    assert_true(s.train.lr == 0.5);
    write_file(path, text, sizeof text); /* with the zero byte */
    assert_int_equal(settings_load(&s, path), ERROR_SETTINGS);
    snprintf(message, sizeof message, "%s: not a text file, it holds a zero byte", path);
    assert_string_equal(error_message(), message);
    write_file(path, "", 0);
    assert_int_equal(settings_load(&s, path), 0);
    write_file(path, "[train]\nlr = x", 14);
    assert_int_equal(settings_load(&s, path), ERROR_SETTINGS);
    snprintf(message, sizeof message, "%s:2: train.lr: 'x' is not a number", path);
    assert_memory_equal(error_message(), message, strlen(message));
    unlink(path);
    rmdir(folder);
}

/* Every key of the dump is explained in the help and in the documentation. */
static void help_is_complete(void **state)
{
    (void)state;
    settings s;
    settings_default(&s);
    char *dump = settings_to_text(&s), *help = NULL, *tables = NULL, *rest = NULL;
    size_t length;
    FILE *out = open_memstream(&help, &length);
    settings_help(out);
    fclose(out);
    out = open_memstream(&tables, &length);
    settings_markdown(out);
    fclose(out);
    char section[32] = "", key[32], expected[96];
    int keys = 0;
    for (char *line = strtok_r(dump, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (sscanf(line, "[%31[a-z]]", section) == 1)
            continue;
        assert_int_equal(sscanf(line, "%31[a-z_0-9] =", key), 1);
        snprintf(expected, sizeof expected, "\n  %s.%s = ", section, key);
        assert_non_null(strstr(help, expected));
        snprintf(expected, sizeof expected, "\n| `%s` | ", key);
        assert_non_null(strstr(tables, expected));
        keys++;
    }
    assert_true(keys > 40);
    assert_non_null(strstr(help, "one of step, cosine, linear, constant"));
    free(tables);
    free(help);
    free(dump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(reads_every_type),
        cmocka_unit_test(quotes_are_taken_off),
        cmocka_unit_test(home_folders),
        cmocka_unit_test(names_from_elsewhere),
        cmocka_unit_test(aliases_are_true),
        cmocka_unit_test(words_of_truth),
        cmocka_unit_test(byte_order_mark_and_empty),
        cmocka_unit_test(unknown_names),
        cmocka_unit_test(wrong_values),
        cmocka_unit_test(broken_lines),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(contradictions),
        cmocka_unit_test(dump_reads_back),
        cmocka_unit_test(loads_files),
        cmocka_unit_test(write_errors_are_reported),
        cmocka_unit_test(help_is_complete),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
