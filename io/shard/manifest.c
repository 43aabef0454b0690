/* Owns the reading and writing of manifests. Invariant: a manifest that was read is bounded and agrees with itself, so
 * that nobody after it need doubt a number. One thread per manifest. */
#include "io/shard/manifest.h"

#include "base/atomic_file.h"
#include "base/error.h"

#include <json-c/json.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* JSON's tree takes many times the text. */
enum { MANIFEST_MOST = 1 << 24, HEX_DIGITS = 16 };
#define MANIFEST_FORMAT "teskd-shards"

const char *shard_split_name(int split)
{
    return split == 0 ? "train" : "val";
}

const char *shard_file_name(int split, int32_t shard, char name[SHARD_FILE_BYTES])
{
    snprintf(name, SHARD_FILE_BYTES, "%s-%05d.h5", shard_split_name(split), shard);
    return name;
}

int shard_path_join(char path[SHARD_PATH_BYTES], const char *folder, const char *name)
{
    int length = snprintf(path, SHARD_PATH_BYTES, "%s/%s", folder, name);
    CHECK(length > 0 && length < SHARD_PATH_BYTES, ERROR_FILE, "%.100s...: a path in it is too long", folder);
    return 0;
}

/* A member of the file, and where it stands, for messages. */
typedef struct {
    const char *path; /* of the file */
    json_object *object;
    const char *where; /* "train.shards[3]." or "" */
} place;

static int get_member(const place *p, const char *key, json_type type, json_object **member)
{
    static const char *const kinds[] = {[json_type_int] = "a whole number",
                                        [json_type_object] = "an object",
                                        [json_type_array] = "an array",
                                        [json_type_string] = "a text"};
    bool found = json_object_object_get_ex(p->object, key, member);
    CHECK(found && json_object_is_type(*member, type), ERROR_DATA, "%s: \"%s%s\" is %s, expected %s", p->path, p->where,
          key, found ? "something else" : "missing", kinds[type]);
    return 0;
}

static int get_count(const place *p, const char *key, int64_t least, int64_t most, int64_t *value)
{
    json_object *member;
    TRY(get_member(p, key, json_type_int, &member));
    *value = json_object_get_int64(member);
    CHECK(*value >= least && *value <= most, ERROR_DATA,
          "%s: \"%s%s\" is %" PRId64 ", expected %" PRId64 " to %" PRId64, p->path, p->where, key, *value, least, most);
    return 0;
}

static int get_bytes(const place *p, const char *key, uint64_t *value)
{
    int64_t count;
    TRY(get_count(p, key, 0, INT64_MAX / 4, &count));
    *value = (uint64_t)count;
    return 0;
}

/* A text of so many hexadecimal digits. */
static int get_hex(const place *p, const char *key, size_t digits, char *text)
{
    json_object *member;
    TRY(get_member(p, key, json_type_string, &member));
    const char *value = json_object_get_string(member);
    CHECK(strlen(value) == digits && strspn(value, "0123456789abcdef") == digits, ERROR_DATA,
          "%s: \"%s%s\" is not %zu hexadecimal digits", p->path, p->where, key, digits);
    memcpy(text, value, digits + 1);
    return 0;
}

static int check_record(const place *p, const shard_record *r)
{
    CHECK(r->offset <= r->file_bytes && r->bytes <= r->file_bytes - r->offset && r->bytes >= (uint64_t)r->images,
          ERROR_DATA,
          "%s: %s: %" PRId64 " images of %" PRIu64 " bytes at offset %" PRIu64 " do not fit a file of %" PRIu64,
          p->path, p->where, r->images, r->bytes, r->offset, r->file_bytes);
    return 0;
}

static int take_record(const place *p, const char *file, shard_record *r)
{
    json_object *name;
    char checksum[HEX_DIGITS + 1];
    TRY(get_member(p, "file", json_type_string, &name));
    CHECK(strcmp(json_object_get_string(name), file) == 0, ERROR_DATA, "%s: \"%sfile\" is \"%.64s\", expected \"%s\"",
          p->path, p->where, json_object_get_string(name), file);
    TRY(get_count(p, "images", 1, INT32_MAX, &r->images));
    TRY(get_bytes(p, "offset", &r->offset));
    TRY(get_bytes(p, "bytes", &r->bytes));
    TRY(get_bytes(p, "file_bytes", &r->file_bytes));
    TRY(get_hex(p, "checksum", HEX_DIGITS, checksum));
    r->checksum = strtoull(checksum, NULL, 16);
    return check_record(p, r);
}

static int take_records(manifest *m, int split, const place *p, json_object *shards)
{
    const size_t count = json_object_array_length(shards);
    CHECK(count <= SHARD_MOST, ERROR_DATA, "%s: %zu shards, at most %d are known", p->path, count, SHARD_MOST);
    m->records[split] = calloc(count + 1, sizeof *m->records[split]);
    CHECK(m->records[split], ERROR_MEMORY, "%s: no memory for its list of shards", p->path);
    for (size_t i = 0; i < count; i++) {
        char where[64], file[SHARD_FILE_BYTES];
        place one = {.path = p->path, .object = json_object_array_get_idx(shards, i), .where = where};
        snprintf(where, sizeof where, "%s.shards[%zu].", shard_split_name(split), i);
        CHECK(json_object_is_type(one.object, json_type_object), ERROR_DATA, "%s: %s is no object", p->path, where);
        TRY(take_record(&one, shard_file_name(split, (int32_t)i, file), &m->records[split][i]));
        m->set.images[split] += m->records[split][i].images;
        m->set.bytes[split] += m->records[split][i].bytes;
    }
    m->set.shards[split] = (int32_t)count;
    return 0;
}

static int take_split(manifest *m, int split, const place *root)
{
    const char *name = shard_split_name(split);
    place p = {.path = root->path, .where = split == 0 ? "train." : "val."};
    json_object *shards;
    int64_t images;
    TRY(get_member(root, name, json_type_object, &p.object));
    TRY(get_count(&p, "images", 0, INT32_MAX, &images));
    TRY(get_member(&p, "shards", json_type_array, &shards));
    TRY(take_records(m, split, &p, shards));
    CHECK(m->set.images[split] == images, ERROR_DATA, "%s: %simages is %" PRId64 ", but the shards have %" PRId64,
          p.path, p.where, images, m->set.images[split]);
    return 0;
}

static int take_text(const place *p, const char *key, char **text)
{
    json_object *member;
    TRY(get_member(p, key, json_type_string, &member));
    *text = strdup(json_object_get_string(member));
    CHECK(*text, ERROR_MEMORY, "%s: no memory for the names of its classes", p->path);
    CHECK(**text, ERROR_DATA, "%s: \"%s%s\" is empty", p->path, p->where, key);
    return 0;
}

static int take_class(manifest *m, const place *root, json_object *object)
{
    char where[64];
    const int32_t label = m->set.classes;
    const place p = {.path = root->path, .object = object, .where = where};
    snprintf(where, sizeof where, "classes[%d].", label);
    CHECK(json_object_is_type(object, json_type_object), ERROR_DATA, "%s: %s is no object", p.path, where);
    m->set.classes++;
    TRY(take_text(&p, "id", &m->set.class_ids[label]));
    return take_text(&p, "name", &m->set.class_names[label]);
}

static int take_classes(manifest *m, const place *root)
{
    json_object *classes;
    TRY(get_member(root, "classes", json_type_array, &classes));
    const size_t count = json_object_array_length(classes);
    CHECK(count >= 1 && count <= SHARD_CLASSES_MOST, ERROR_DATA, "%s: %zu classes, expected 1 to %d", root->path, count,
          SHARD_CLASSES_MOST);
    m->set.class_ids = calloc(count, sizeof *m->set.class_ids);
    m->set.class_names = calloc(count, sizeof *m->set.class_names);
    CHECK(m->set.class_ids && m->set.class_names, ERROR_MEMORY, "%s: no memory for its classes", root->path);
    for (size_t i = 0; i < count; i++)
        TRY(take_class(m, root, json_object_array_get_idx(classes, i)));
    return 0;
}

static int take_all(manifest *m, const place *root)
{
    json_object *format;
    int64_t version;
    CHECK(json_object_is_type(root->object, json_type_object), ERROR_DATA, "%s: no JSON object", root->path);
    TRY(get_member(root, "format", json_type_string, &format));
    CHECK(strcmp(json_object_get_string(format), MANIFEST_FORMAT) == 0, ERROR_DATA,
          "%s: \"format\" is \"%.64s\", expected \"%s\"", root->path, json_object_get_string(format), MANIFEST_FORMAT);
    TRY(get_count(root, "version", INT64_MIN, INT64_MAX, &version));
    CHECK(version == SHARD_VERSION, ERROR_DATA, "%s: shard format version %" PRId64 ", this program reads version %d",
          root->path, version, SHARD_VERSION);
    TRY(get_hex(root, "id", SHARD_ID_BYTES - 1, m->set.id));
    TRY(get_hex(root, "plan", SHARD_ID_BYTES - 1, m->plan));
    TRY(take_classes(m, root));
    for (int split = 0; split < SHARD_SPLITS; split++)
        TRY(take_split(m, split, root));
    CHECK(m->set.images[0] + m->set.images[1] > 0, ERROR_DATA, "%s: a data set without images", root->path);
    return 0;
}

static int parse(manifest *m, const char *path, const char *text, size_t bytes)
{
    json_tokener *parser = json_tokener_new();
    CHECK(parser, ERROR_MEMORY, "%s: no memory to read it", path);
    json_tokener_set_flags(parser, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    const place root = {.path = path, .object = json_tokener_parse_ex(parser, text, (int)bytes), .where = ""};
    const enum json_tokener_error error = json_tokener_get_error(parser);
    const size_t end = json_tokener_get_parse_end(parser);
    json_tokener_free(parser);
    int status = error == json_tokener_success
                     ? take_all(m, &root)
                     : error_set(ERROR_DATA, "%s: no JSON, or not all of it, at offset %zu: %s", path, end,
                                 json_tokener_error_desc(error));
    json_object_put(root.object);
    return status;
}

static int open_manifest(const char *path, const char *folder, int *file, size_t *bytes)
{
    struct stat info;
    *file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    const bool absent = *file < 0 && errno == ENOENT;
    CHECK(!absent, ERROR_FILE, "%s: there is none: %s holds no packed data set, or one whose packing is not finished",
          path, folder);
    CHECK(*file >= 0 && fstat(*file, &info) == 0, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    CHECK(S_ISREG(info.st_mode), ERROR_FILE, "%s: not a regular file", path);
    CHECK(info.st_size <= MANIFEST_MOST, ERROR_DATA, "%s: %lld bytes, at most %d are read", path,
          (long long)info.st_size, MANIFEST_MOST);
    *bytes = (size_t)info.st_size;
    return 0;
}

static int read_text(const char *path, int file, size_t bytes, char **text)
{
    *text = malloc(bytes + 1);
    CHECK(*text, ERROR_MEMORY, "%s: no memory to read it", path);
    ssize_t got = pread(file, *text, bytes, 0);
    CHECK(got == (ssize_t)bytes, ERROR_FILE, "%s: cannot read: %s", path,
          got < 0 ? strerror(errno) : "it became shorter");
    (*text)[bytes] = '\0';
    return 0;
}

int manifest_read(manifest *m, const char *folder)
{
    char path[SHARD_PATH_BYTES], *text = NULL;
    size_t bytes = 0;
    int file = -1;
    memset(m, 0, sizeof *m);
    TRY(shard_path_join(path, folder, SHARD_MANIFEST_NAME));
    int status = open_manifest(path, folder, &file, &bytes);
    if (status == 0)
        status = read_text(path, file, bytes, &text);
    if (status == 0)
        status = parse(m, path, text, bytes);
    if (file >= 0)
        close(file);
    free(text);
    if (status < 0)
        manifest_close(m);
    return status;
}

static json_object *hex(uint64_t value)
{
    char text[HEX_DIGITS + 1];
    snprintf(text, sizeof text, "%016" PRIx64, value);
    return json_object_new_string(text);
}

static json_object *record_object(const shard_record *r, const char *file)
{
    json_object *o = json_object_new_object();
    json_object_object_add(o, "file", json_object_new_string(file));
    json_object_object_add(o, "images", json_object_new_int64(r->images));
    json_object_object_add(o, "offset", json_object_new_int64((int64_t)r->offset));
    json_object_object_add(o, "bytes", json_object_new_int64((int64_t)r->bytes));
    json_object_object_add(o, "file_bytes", json_object_new_int64((int64_t)r->file_bytes));
    json_object_object_add(o, "checksum", hex(r->checksum));
    return o;
}

static json_object *split_object(const manifest *m, int split)
{
    char file[SHARD_FILE_BYTES];
    json_object *o = json_object_new_object(), *shards = json_object_new_array();
    json_object_object_add(o, "images", json_object_new_int64(m->set.images[split]));
    json_object_object_add(o, "bytes", json_object_new_int64((int64_t)m->set.bytes[split]));
    for (int32_t i = 0; i < m->set.shards[split]; i++)
        json_object_array_add(shards, record_object(&m->records[split][i], shard_file_name(split, i, file)));
    json_object_object_add(o, "shards", shards);
    return o;
}

static json_object *classes_array(const manifest *m)
{
    json_object *classes = json_object_new_array();
    for (int32_t i = 0; i < m->set.classes; i++) {
        json_object *o = json_object_new_object();
        json_object_object_add(o, "id", json_object_new_string(m->set.class_ids[i]));
        json_object_object_add(o, "name", json_object_new_string(m->set.class_names[i]));
        json_object_array_add(classes, o);
    }
    return classes;
}

static json_object *whole_object(const manifest *m)
{
    json_object *o = json_object_new_object();
    json_object_object_add(o, "format", json_object_new_string(MANIFEST_FORMAT));
    json_object_object_add(o, "version", json_object_new_int(SHARD_VERSION));
    json_object_object_add(o, "id", json_object_new_string(m->set.id));
    json_object_object_add(o, "plan", json_object_new_string(m->plan));
    for (int split = 0; split < SHARD_SPLITS; split++)
        json_object_object_add(o, shard_split_name(split), split_object(m, split));
    json_object_object_add(o, "classes", classes_array(m));
    return o;
}

static int write_text(const char *path, const char *text)
{
    atomic_file *file;
    TRY(atomic_file_create(&file, path));
    int status = atomic_file_write(file, text, strlen(text));
    if (status == 0)
        status = atomic_file_write(file, "\n", 1);
    if (status == 0)
        status = atomic_file_commit(&file);
    atomic_file_abandon(&file);
    return status;
}

int manifest_write(const manifest *m, const char *folder)
{
    char path[SHARD_PATH_BYTES];
    TRY(shard_path_join(path, folder, SHARD_MANIFEST_NAME));
    json_object *whole = whole_object(m);
    const char *text = json_object_to_json_string_ext(whole, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
    int status = text ? write_text(path, text) : error_set(ERROR_MEMORY, "%s: no memory to write it", path);
    json_object_put(whole);
    return status;
}

static void free_texts(char **texts, int32_t count)
{
    for (int32_t i = 0; texts && i < count; i++)
        free(texts[i]);
    free(texts);
}

void shard_manifest_close(shard_manifest *set)
{
    free_texts(set->class_ids, set->classes);
    free_texts(set->class_names, set->classes);
    memset(set, 0, sizeof *set);
}

void manifest_close(manifest *m)
{
    shard_manifest_close(&m->set);
    for (int split = 0; split < SHARD_SPLITS; split++)
        free(m->records[split]);
    memset(m, 0, sizeof *m);
}

int shard_manifest_read(shard_manifest *set, const char *folder)
{
    manifest m;
    memset(set, 0, sizeof *set);
    TRY(manifest_read(&m, folder));
    *set = m.set;
    memset(&m.set, 0, sizeof m.set);
    manifest_close(&m);
    return 0;
}
