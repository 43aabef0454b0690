/* JSON lines, the log and the small text functions. */
#include "base/error.h"
#include "base/json_lines.h"
#include "base/log.h"
#include "base/text.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static void make_path(char path[64])
{
    snprintf(path, 64, "/tmp/teskd_output_XXXXXX");
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
}

static void assert_file_holds(const char *path, const char *expected)
{
    char text[4096];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    assert_string_equal(text, expected);
}

static void json_members(void **state)
{
    (void)state;
    char path[64];
    make_path(path);
    json_lines json;
    const double values[] = {1, 0.1, NAN, -INFINITY, 1e300};
    assert_int_equal(json_open(&json, path), 0);
    json_begin(&json);
    json_number(&json, "loss", 0.1 + 0.2);
    json_number(&json, "bad", NAN);
    json_integer(&json, "step", INT64_MIN);
    json_numbers(&json, "all", values, 5);
    json_numbers(&json, "none", values, 0);
    assert_int_equal(json_end(&json), 0);
    assert_file_holds(path, "{\"loss\":0.30000000000000004,\"bad\":null,\"step\":-9223372036854775808,"
                            "\"all\":[1,0.1,null,null,1e+300],\"none\":[]}\n"); /* before it is closed */
    json_begin(&json);
    assert_int_equal(json_end(&json), 0);
    assert_int_equal(json_close(&json), 0);
    assert_int_equal(json_close(&json), 0);
    unlink(path);
}

static void json_escapes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"plain", "plain"},
        {"a\"b\\c/", "a\\\"b\\\\c/"},
        {"\n\t\x01\x1f\x7f", "\\u000a\\u0009\\u0001\\u001f\x7f"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xff|\xc3|\x80|", "\\ufffd|\\ufffd|\\ufffd|"},
        {"\xc0\xaf", "\\ufffd\\ufffd"},                       /* too long a form of '/' */
        {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},            /* a surrogate */
        {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"}, /* above U+10FFFF */
        {"\xe2\x82", "\\ufffd\\ufffd"},                       /* cut off */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[64], expected[128];
        make_path(path);
        json_lines json;
        assert_int_equal(json_open(&json, path), 0);
        json_begin(&json);
        json_text(&json, "k\"", cases[i].text);
        assert_int_equal(json_end(&json), 0);
        assert_int_equal(json_close(&json), 0);
        snprintf(expected, sizeof expected, "{\"k\\\"\":\"%s\"}\n", cases[i].json);
        assert_file_holds(path, expected);
        unlink(path);
    }
}

static void json_cuts_an_unfinished_line(void **state)
{
    (void)state;
    char path[64];
    make_path(path);
    for (int run = 0; run < 2; run++) {
        json_lines json;
        assert_int_equal(json_open(&json, path), 0);
        assert_int_equal(json.goes_on, run > 0);
        json_begin(&json);
        json_integer(&json, "run", run);
        assert_int_equal(json_end(&json), 0);
        assert_int_equal(json_close(&json), 0);
    }
    assert_file_holds(path, "{\"run\":0}\n{\"run\":1}\n");
    assert_int_equal(truncate(path, 15), 0);
    json_lines json;
    assert_int_equal(json_open(&json, path), 0);
    json_begin(&json);
    assert_int_equal(json_end(&json), 0);
    assert_int_equal(json_close(&json), 0);
    assert_file_holds(path, "{\"run\":0}\n{}\n");

    /* One that is longer than what is read at once, and nothing before it. */
    for (off_t size = 4095; size <= 4097; size++) {
        assert_int_equal(truncate(path, 0), 0);
        assert_int_equal(truncate(path, size), 0);
        assert_int_equal(json_open(&json, path), 0);
        assert_false(json.goes_on);
        assert_int_equal(json_close(&json), 0);
        assert_file_holds(path, "");
    }
    unlink(path);
}

static void json_reports_errors(void **state)
{
    (void)state;
    json_lines json;
    assert_int_equal(json_open(&json, "/nowhere/metrics.jsonl"), ERROR_FILE);
    assert_string_equal(error_message(), "/nowhere/metrics.jsonl: cannot open: No such file or directory");
    assert_int_equal(json_close(&json), 0);

    assert_int_equal(json_open(&json, "/dev/full"), ERROR_FILE);
    assert_string_equal(error_message(), "/dev/full: not a regular file");
    char path[64], link_name[80];
    make_path(path);
    snprintf(link_name, sizeof link_name, "%s.link", path);
    assert_int_equal(symlink(path, link_name), 0);
    assert_int_equal(json_open(&json, link_name), ERROR_FILE);
    unlink(link_name);

    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){1, limit.rlim_max}), 0);
    assert_int_equal(json_open(&json, path), 0);
    json_begin(&json);
    int status = json_end(&json);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(status, ERROR_FILE);
    assert_non_null(strstr(error_message(), ": cannot write: File too large"));
    json_close(&json);
    unlink(path);
}

/* A logger that writes to memory. */
typedef struct {
    logger log;
    char *out, *err;
    size_t out_bytes, err_bytes;
} recorder;

static void record(recorder *r, int rank, int size, bool terminal)
{
    log_open(&r->log, rank, size, "node7");
    r->log.out = open_memstream(&r->out, &r->out_bytes);
    r->log.err = open_memstream(&r->err, &r->err_bytes);
    r->log.terminal = terminal;
}

static void expect_record(recorder *r, const char *out, const char *err)
{
    log_close(&r->log);
    fclose(r->log.out);
    fclose(r->log.err);
    assert_string_equal(r->out, out);
    assert_string_equal(r->err, err);
    free(r->out);
    free(r->err);
}

static void say_everything(logger *log)
{
    log_live(log, "step %d", 1);
    log_live(log, "step %d", 2);
    log_info(log, "epoch %d", 1);
    log_live(log, "step %d", 3);
    log_warning(log, "slow %s", "disk");
    log_error(log, "no %s", "disk");
}

static void log_of_one_rank(void **state)
{
    (void)state;
    recorder r;
    record(&r, 0, 1, false);
    say_everything(&r.log);
    expect_record(&r, "epoch 1\n", "teskd: warning: slow disk\nteskd: no disk\n");
    record(&r, 0, 1, true);
    say_everything(&r.log);
    log_live(&r.log, "last");
    expect_record(&r, "step 1\r\033[Kstep 2\r\033[Kepoch 1\nstep 3\r\033[Klast\r\033[K",
                  "teskd: warning: slow disk\nteskd: no disk\n");
}

static void log_of_several_ranks(void **state)
{
    (void)state;
    recorder r;
    record(&r, 3, 4, true);
    say_everything(&r.log);
    expect_record(&r, "", "teskd: warning: rank 3 on node7: slow disk\nteskd: rank 3 on node7: no disk\n");
    record(&r, 0, 4, false);
    say_everything(&r.log);
    expect_record(&r, "epoch 1\n", "teskd: warning: rank 0 on node7: slow disk\nteskd: rank 0 on node7: no disk\n");
}

static void live_line_fits_the_terminal(void **state)
{
    (void)state;
    recorder r;
    char expected[128];
    record(&r, 0, 1, true);
    log_live(&r.log, "%0200d", 0);
    snprintf(expected, sizeof expected, "%079d\r\033[K", 0);
    expect_record(&r, expected, "");
}

static void doubles_read_back(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},     {-0.0, "-0"},   {0.1, "0.1"},   {5e-4, "0.0005"},     {1e-7, "1e-07"},
                 {128, "128"}, {1000, "1000"}, {1e6, "1e+06"}, {1048576, "1048576"}, {1.0 / 3, "0.3333333333333333"}};
    char text[TEXT_DOUBLE_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        text_from_double(cases[i].value, text);
        assert_string_equal(text, cases[i].text);
    }
    const double extremes[] = {DBL_MAX, -DBL_MAX, DBL_MIN, DBL_EPSILON, 5e-324, 0.1 + 0.2, 1e23};
    for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++) {
        text_from_double(extremes[i], text);
        assert_true(strtod(text, NULL) == extremes[i]);
    }
}

static void distances(void **state)
{
    (void)state;
    assert_int_equal(text_distance("", ""), 0);
    assert_int_equal(text_distance("lr", "lr"), 0);
    assert_int_equal(text_distance("", "abc"), 3);
    assert_int_equal(text_distance("abc", ""), 3);
    assert_int_equal(text_distance("kitten", "sitting"), 3);
    assert_int_equal(text_distance("sitting", "kitten"), 3);
    assert_int_equal(text_distance("epoch", "epochs"), 1);
    char text[200];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(text_distance(text, "a"), 62);
}

static void assert_shown(const char *text, const char *expected)
{
    char shown[64], again[64];
    text_printable(text, shown, sizeof shown);
    assert_string_equal(shown, expected);
    text_printable(shown, again, sizeof again);
    assert_string_equal(again, expected);
}

static void texts_that_can_be_printed(void **state)
{
    (void)state;
    char out[8];
    assert_shown("", "");
    assert_shown("plain \\x1b \"text\" ~", "plain \\x1b \"text\" ~");
    assert_shown("Gr\xc3\xb6\xc3\x9f"
                 "e \xe2\x82\xac \xf0\x9f\x90\xb8",
                 "Gr\xc3\xb6\xc3\x9f"
                 "e \xe2\x82\xac \xf0\x9f\x90\xb8");
    assert_shown("\x1b[2J\a\x7f", "\\x1b[2J\\x07\\x7f");
    assert_shown("a\r\n\tb", "a\\x0d\\x0a\\x09"
                             "b");
    assert_shown("\xc2\x9b"
                 "2J",
                 "\\xc2\\x9b"
                 "2J"); /* the one-byte form of ESC [ */
    assert_shown("\xe2\x80\xae"
                 "gpj",
                 "\\xe2\\x80\\xae"
                 "gpj"); /* from right to left */
    assert_shown("\xf6\xc0\xaf\xed\xa0\x80", "\\xf6\\xc0\\xaf\\xed\\xa0\\x80");
    text_printable("abc\xe2\x82\xac"
                   "d",
                   out, 7);
    assert_string_equal(out, "abc\xe2\x82\xac");
    text_printable("abc\xe2\x82\xac"
                   "d",
                   out, 6);
    assert_string_equal(out, "abc");
    text_printable("abc\x1b", out, 7);
    assert_string_equal(out, "abc");
}

static void messages_that_can_be_printed(void **state)
{
    (void)state;
    error_set(ERROR_FILE, "tensor '%s'", "\x1b]0;x\a");
    assert_string_equal(error_message(), "tensor '\\x1b]0;x\\x07'");
    error_prefix(ERROR_FILE, "a\nb");
    error_suffix(ERROR_FILE, "\x9b");
    assert_string_equal(error_message(), "a\\x0ab: tensor '\\x1b]0;x\\x07'\\x9b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_members),
        cmocka_unit_test(json_escapes),
        cmocka_unit_test(json_reports_errors),
        cmocka_unit_test(json_cuts_an_unfinished_line),
        cmocka_unit_test(log_of_one_rank),
        cmocka_unit_test(log_of_several_ranks),
        cmocka_unit_test(doubles_read_back),
        cmocka_unit_test(live_line_fits_the_terminal),
        cmocka_unit_test(distances),
        cmocka_unit_test(texts_that_can_be_printed),
        cmocka_unit_test(messages_that_can_be_printed),
    };
    return cmocka_run_group_tests_name("output", tests, NULL, NULL);
}
