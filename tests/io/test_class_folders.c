/* Class folders: the order of torchvision's ImageFolder, what counts as an image, what is refused. */
#include "scratch.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/file/class_folders.h"

static void touch(scratch *s, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s", scratch_path(s, name));
    *strrchr(path, '/') = '\0';
    assert_int_equal(make_folders(path), 0);
    scratch_write(s, name, "", 0);
}

static void test_order(void **state)
{
    static const char *const files[] = {"b/x.JPG",    "b/sub/a.png", "b/sub-2/a.png", "b/Z.jpeg", "b/notes.txt",
                                        "a/2.jpg",    "a/10.jpg",    "B/x.PnG",       "b/.jpg",   "b/sub/deeper/0.jpg",
                                        "README.jpg", "a/jpg"};
    static const char *const expected[] = {"B/x.PnG",     "a/10.jpg",      "a/2.jpg",
                                           "b/.jpg",      "b/Z.jpeg",      "b/x.JPG",
                                           "b/sub/a.png", "b/sub-2/a.png", "b/sub/deeper/0.jpg"};
    scratch *s = *state;
    class_folders l;
    char root[80];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        touch(s, files[i]);
    snprintf(root, sizeof root, "%s//", s->folder); /* slashes at the end are none of the names' */
    assert_int_equal(class_folders_scan(&l, root), 0);
    assert_int_equal(l.classes, 3);
    assert_string_equal(l.class_ids[0], "B");
    assert_string_equal(l.class_ids[2], "b");
    assert_int_equal(l.images, 9);
    assert_int_equal(l.others, 3);
    for (int64_t i = 0; i < l.images; i++) {
        assert_string_equal(class_folders_path(&l, i), expected[i]);
        assert_int_equal(l.labels[i], i == 0 ? 0 : i < 3 ? 1 : 2);
    }
    class_folders_close(&l);
    assert_int_equal(l.images, 0);
}

/* As Python sorts the pairs of folder and name: "sub" before "sub-2" before "sub/deeper". */
static void test_order_of_folders(void **state)
{
    static const char *const expected[] = {"a/z.jpg", "a/sub/2.jpg", "a/sub-2/1.jpg", "a/sub/deeper/0.jpg"};
    scratch *s = *state;
    class_folders l;
    for (int i = 3; i >= 0; i--)
        touch(s, expected[i]);
    assert_int_equal(class_folders_scan(&l, s->folder), 0);
    for (int64_t i = 0; i < 4; i++)
        assert_string_equal(class_folders_path(&l, i), expected[i]);
    class_folders_close(&l);
}

static void test_classes_alone(void **state)
{
    scratch *s = *state;
    class_folders l;
    touch(s, "one/x.jpg");
    assert_int_equal(make_folders(scratch_path(s, "two")), 0);
    assert_int_equal(class_folders_list(&l, s->folder), 0);
    assert_int_equal(l.classes, 2);
    assert_int_equal(l.images, 0);
    class_folders_close(&l);
    assert_int_equal(class_folders_scan(&l, s->folder), ERROR_DATA);
    assert_contains(error_message(), "two: the class has no image");
}

static void test_links(void **state)
{
    scratch *s = *state;
    class_folders l;
    char to[160];
    touch(s, "one/x.jpg");
    snprintf(to, sizeof to, "%s", scratch_path(s, "one"));
    assert_int_equal(symlink(to, scratch_path(s, "two")), 0);
    assert_int_equal(symlink("/nowhere", scratch_path(s, "one/gone.jpg")), 0);
    assert_int_equal(class_folders_scan(&l, s->folder), 0);
    assert_int_equal(l.classes, 2);
    assert_int_equal(l.images, 4);
    class_folders_close(&l);
    assert_int_equal(symlink(to, scratch_path(s, "one/circle")), 0);
    assert_int_equal(class_folders_scan(&l, s->folder), ERROR_DATA);
    assert_contains(error_message(), "circle");
}

static void test_refusals(void **state)
{
    scratch *s = *state;
    class_folders l;
    assert_int_equal(class_folders_scan(&l, scratch_path(s, "none")), ERROR_FILE);
    assert_contains(error_message(), "none");
    assert_int_equal(class_folders_scan(&l, s->folder), ERROR_DATA);
    assert_contains(error_message(), "a folder for each class");
    assert_int_equal(class_folders_scan(&l, ""), ERROR_FILE);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {TEST(test_order), TEST(test_order_of_folders), TEST(test_classes_alone),
                                       TEST(test_links), TEST(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
