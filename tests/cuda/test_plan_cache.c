/* The plan cache: what is put is got, damage counts as absence, writers do not disturb each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/error.h"
#include "kernels/cuda/library/plan_cache.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    char root[64];
    plan_cache *cache;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    strcpy(f->root, "/tmp/teskd_plan_cache_XXXXXX");
    if (!mkdtemp(f->root) || plan_cache_open(&f->cache, f->root, "cudnn-9.19.0 sm90/GPU") < 0)
        return -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    char command[128];
    plan_cache_close(f->cache);
    snprintf(command, sizeof command, "rm -r '%s'", f->root);
    int status = system(command);
    free(f);
    return status;
}

static void expect(const plan_cache *cache, const char *key, const char *plan)
{
    size_t bytes = 0;
    char *text = plan_cache_get(cache, key, &bytes);
    if (!plan) {
        assert_null(text);
        return;
    }
    assert_non_null(text);
    assert_int_equal(bytes, strlen(plan));
    assert_string_equal(text, plan);
    free(text);
}

static void only_file(const fixture *f, char path[256])
{
    char pattern[128];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*/*", f->root);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    snprintf(path, 256, "%s", found.gl_pathv[0]);
    globfree(&found);
}

static void round_trip(void **state)
{
    fixture *f = *state;
    expect(f->cache, "conv a", NULL);
    assert_int_equal(plan_cache_put(f->cache, "conv a", "{plan a}", 8), 0);
    assert_int_equal(plan_cache_put(f->cache, "conv b", "line 1\nline 2\n", 14), 0);
    assert_int_equal(plan_cache_put(f->cache, "empty", "", 0), 0);
    expect(f->cache, "conv a", "{plan a}");
    expect(f->cache, "conv b", "line 1\nline 2\n");
    expect(f->cache, "empty", "");
    expect(f->cache, "conv", NULL);
    assert_int_equal(plan_cache_put(f->cache, "conv a", "{another}", 9), 0);
    expect(f->cache, "conv a", "{another}");
    plan_cache *again;
    assert_int_equal(plan_cache_open(&again, f->root, "cudnn-9.19.0 sm90/GPU"), 0);
    expect(again, "conv a", "{another}");
    plan_cache_close(again);
    assert_int_equal(plan_cache_open(&again, f->root, "cudnn-9.20.0 sm90/GPU"), 0);
    expect(again, "conv a", NULL);
    plan_cache_close(again);
}

/* Each byte changed, each length cut, and something at the end. */
static void damaged(void **state)
{
    fixture *f = *state;
    char path[256], good[256], bad[256];
    assert_int_equal(plan_cache_put(f->cache, "key", "the plan's text", 15), 0);
    only_file(f, path);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(good, 1, sizeof good, file);
    fclose(file);
    for (size_t i = 0; i < 2 * size + 1; i++) {
        size_t length = i < size ? size : i < 2 * size ? i - size : size + 1;
        memcpy(bad, good, size);
        bad[size] = 'x';
        if (i < size)
            bad[i] = (char)(bad[i] ^ 4);
        file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bad, 1, length, file), length);
        assert_int_equal(fclose(file), 0);
        expect(f->cache, "key", NULL);
    }
    assert_int_equal(plan_cache_put(f->cache, "key", "the plan's text", 15), 0);
    expect(f->cache, "key", "the plan's text");
}

static void write_often(plan_cache *cache, char writer)
{
    char plan[4096], key[16];
    memset(plan, writer, sizeof plan);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "key %d", i % 4);
        if (plan_cache_put(cache, key, plan, sizeof plan) < 0)
            _exit(1);
    }
    _exit(0);
}

/* While four processes write the same keys, a reader sees whole plans only. */
static void concurrent_writers(void **state)
{
    enum { WRITERS = 4 };
    fixture *f = *state;
    pid_t writer[WRITERS];
    for (int w = 0; w < WRITERS; w++) {
        writer[w] = fork();
        assert_true(writer[w] >= 0);
        if (writer[w] == 0)
            write_often(f->cache, (char)('a' + w));
    }
    int seen = 0, status;
    while (waitpid(writer[0], &status, WNOHANG) == 0) {
        size_t bytes = 0;
        char *plan = plan_cache_get(f->cache, "key 1", &bytes);
        if (!plan) {
            assert_int_equal(seen, 0); /* once there it never is away */
            continue;
        }
        assert_int_equal(bytes, 4096);
        assert_memory_equal(plan, plan + 1, bytes - 1);
        free(plan);
        seen++;
    }
    assert_int_equal(status, 0);
    for (int w = 1; w < WRITERS; w++) {
        assert_int_equal(waitpid(writer[w], &status, 0), writer[w]);
        assert_int_equal(status, 0);
    }
    char pattern[128];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*/*", f->root);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 4); /* four plans, no temporary file */
    globfree(&found);
}

static void unusable_folder(void **state)
{
    (void)state;
    plan_cache *cache;
    assert_int_equal(plan_cache_open(&cache, "/dev/null", "x"), ERROR_FILE);
    assert_non_null(strstr(error_message(), "/dev/null"));
}

static void in_memory(void **state)
{
    (void)state;
    plan_cache *cache;
    assert_int_equal(plan_cache_open_memory(&cache), 0);
    expect(cache, "a", NULL);
    assert_int_equal(plan_cache_put(cache, "a", "plan", 4), 0);
    assert_int_equal(plan_cache_put(cache, "b", "", 0), 0);
    expect(cache, "a", "plan");
    expect(cache, "b", "");
    assert_int_equal(plan_cache_put(cache, "a", "another", 7), 0);
    expect(cache, "a", "another");
    plan_cache_close(cache);
}

static void default_folder(void **state)
{
    (void)state;
    char folder[64], small[4];
    setenv("XDG_CACHE_HOME", "/var/cache/user", 1);
    assert_int_equal(plan_cache_default_folder(folder, sizeof folder), 0);
    assert_string_equal(folder, "/var/cache/user/teskd");
    assert_int_equal(plan_cache_default_folder(small, sizeof small), ERROR_FILE);
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/home/user", 1);
    assert_int_equal(plan_cache_default_folder(folder, sizeof folder), 0);
    assert_string_equal(folder, "/home/user/.cache/teskd");
    unsetenv("HOME");
    assert_int_equal(plan_cache_default_folder(folder, sizeof folder), ERROR_FILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(concurrent_writers, setup, teardown),
        cmocka_unit_test(unusable_folder),
        cmocka_unit_test(in_memory),
        cmocka_unit_test(default_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
