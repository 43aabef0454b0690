/* Owns the marks by which kinds of files are known. Constant; any thread. */
#include "io/file/file_kind.h"
#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* HDF5 files may begin behind a block of someone else's, of 512 bytes or a power of two times that. */
enum { FIRST_BYTES = 512, BLOCKS = 3, SAFETENSORS_HEADER_MAX = 100000000 };

typedef struct {
    uint8_t bytes[FIRST_BYTES];
    size_t count;
    int descriptor;
} beginning;

#define MARK(kind, text)                                                                                               \
    {                                                                                                                  \
        kind, text, sizeof(text) - 1                                                                                   \
    }
static const struct {
    file_kind kind;
    const char *mark;
    size_t bytes;
} marks[] = {
    MARK(FILE_CHECKPOINT, "teskd-checkpoint"),
    MARK(FILE_LFS_POINTER, "version https://git-lfs.github.com/spec/"),
    MARK(FILE_PYTORCH, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"), /* before PyTorch 1.6 */
    MARK(FILE_PICKLE, "\x80\x02"),
    MARK(FILE_PICKLE, "\x80\x03"),
    MARK(FILE_PICKLE, "\x80\x04"),
    MARK(FILE_PICKLE, "\x80\x05"),
    MARK(FILE_ZIP, "PK\x03\x04"),
    MARK(FILE_COMPRESSED, "\x1f\x8b"),
    MARK(FILE_COMPRESSED, "\xfd\x37zXZ"),
    MARK(FILE_COMPRESSED, "\x28\xb5\x2f\xfd"),
    MARK(FILE_COMPRESSED, "BZh"),
};

static const struct {
    const char *name, *advice;
    bool of_weights; /* the advice is for who looks for weights */
} kinds[FILE_KINDS] = {
    [FILE_FOLDER] = {"a folder", "give a file in it", false},
    [FILE_NO_STORAGE] = {"a pipe or a device", "copy its content into a file", false},
    [FILE_EMPTY] = {"an empty file", "copy or download it again", false},
    [FILE_LFS_POINTER] = {"a Git LFS pointer", "'git lfs pull' fetches the file itself", false},
    [FILE_WEB_PAGE] = {"a web page", "it may be the answer to a download: of an error, or of a login", false},
    [FILE_JSON] = {"a JSON text", "weights are in another file, perhaps beside it", true},
    [FILE_CHECKPOINT] = {"a checkpoint", "'teskd export' makes a safetensors file of it", true},
    [FILE_HDF5] = {"an HDF5 file", "'teskd export' makes a safetensors file of a checkpoint", true},
    [FILE_SAFETENSORS] = {"a safetensors file", "'teskd import' makes a checkpoint of it", true},
    [FILE_ONNX] = {"an ONNX file", "ONNX is written, but not read, here", true},
    [FILE_PYTORCH] = {"a PyTorch file", "save its state_dict with safetensors.torch.save_file for 'teskd import'",
                      true},
    [FILE_PICKLE] = {"a Python pickle", "save its weights with safetensors.numpy.save_file for 'teskd import'", true},
    [FILE_ZIP] = {"a ZIP archive", "unpack it first", false},
    [FILE_COMPRESSED] = {"a compressed file", "unpack it first", false},
};

static const struct {
    const char *what;
    file_kind kind;
    bool weights;
} expectations[] = {
    [EXPECT_CHECKPOINT] = {"a teskd-checkpoint", FILE_CHECKPOINT, true},
    [EXPECT_REFERENCE] = {"a reference (HDF5)", FILE_HDF5, false},
    [EXPECT_SAFETENSORS] = {"a safetensors file", FILE_SAFETENSORS, true},
    [EXPECT_RECORDS] = {"records of images", FILE_UNKNOWN, false},
};

static bool begins(const beginning *b, size_t at, const void *mark, size_t bytes)
{
    return at + bytes <= b->count && memcmp(b->bytes + at, mark, bytes) == 0;
}

static bool is_hdf5(const beginning *b)
{
    static const char mark[8] = "\x89HDF\r\n\x1a\n";
    char found[sizeof mark];
    bool is = begins(b, 0, mark, sizeof mark);
    for (int i = 0; i < BLOCKS && !is; i++)
        is = pread(b->descriptor, found, sizeof found, FIRST_BYTES << i) == sizeof found &&
             memcmp(found, mark, sizeof mark) == 0;
    return is;
}

static bool is_safetensors(const beginning *b)
{
    uint64_t header;
    if (b->count <= sizeof header)
        return false;
    memcpy(&header, b->bytes, sizeof header);
    return header > 0 && header <= SAFETENSORS_HEADER_MAX && b->bytes[sizeof header] == '{';
}

/* ir_version, then producer_name: a protobuf's fields 1 and 2. */
static bool is_onnx(const beginning *b)
{
    return b->count > 4 && b->bytes[0] == 0x08 && b->bytes[1] > 0 && b->bytes[1] < 64 && b->bytes[2] == 0x12 &&
           b->bytes[3] > 0 && isalpha(b->bytes[4]);
}

/* An archive whose first member is "NAME/data.pkl". */
static bool is_pytorch(const beginning *b)
{
    static const char member[] = "/data.pkl";
    return begins(b, 0, "PK\x03\x04", 4) && memmem(b->bytes, b->count, member, sizeof member - 1) != NULL;
}

/* The first text that is no white space and no byte order mark. */
static const char *first_text(const beginning *b, size_t *left)
{
    static const char blanks[] = {' ', '\t', '\r', '\n'};
    size_t at = begins(b, 0, "\xef\xbb\xbf", 3) ? 3 : 0;
    while (at < b->count && memchr(blanks, b->bytes[at], sizeof blanks))
        at++;
    *left = b->count - at;
    return (const char *)b->bytes + at;
}

static file_kind text_kind(const beginning *b)
{
    static const char *const pages[] = {"<!doctype html", "<html", "<head", "<?xml"};
    size_t left;
    const char *text = first_text(b, &left);
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        if (left >= strlen(pages[i]) && strncasecmp(text, pages[i], strlen(pages[i])) == 0)
            return FILE_WEB_PAGE;
    return left > 0 && text[0] == '{' ? FILE_JSON : FILE_UNKNOWN;
}

static file_kind content_kind(const beginning *b)
{
    if (b->count == 0)
        return FILE_EMPTY;
    if (is_safetensors(b))
        return FILE_SAFETENSORS;
    if (is_pytorch(b))
        return FILE_PYTORCH;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (begins(b, 0, marks[i].mark, marks[i].bytes))
            return marks[i].kind;
    if (is_hdf5(b))
        return FILE_HDF5;
    return is_onnx(b) ? FILE_ONNX : text_kind(b);
}

static int open_kind(const char *path, int descriptor)
{
    beginning b = {.descriptor = descriptor};
    struct stat info;
    CHECK(fstat(descriptor, &info) == 0, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return FILE_FOLDER;
    if (!S_ISREG(info.st_mode))
        return FILE_NO_STORAGE;
    ssize_t got = pread(descriptor, b.bytes, sizeof b.bytes, 0);
    CHECK(got >= 0, ERROR_FILE, "%s: cannot read: %s", path, strerror(errno));
    b.count = (size_t)got;
    return (int)content_kind(&b);
}

int file_kind_of(const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
        return FILE_NO_STORAGE; /* opening could wait, or rewind a tape */
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    CHECK(descriptor >= 0, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    int kind = open_kind(path, descriptor);
    close(descriptor);
    return kind;
}

int file_kind_check(const char *path, file_expectation expected)
{
    int kind = file_kind_of(path);
    TRY(kind);
    /* Without its beginning or all of its bytes it is a damaged checkpoint, as its reader finds. */
    bool may_be_damaged = expected == EXPECT_CHECKPOINT && (kind == FILE_HDF5 || kind == FILE_EMPTY);
    if (kind == FILE_UNKNOWN || kind == (int)expectations[expected].kind || may_be_damaged)
        return 0;
    bool advised = expectations[expected].weights || !kinds[kind].of_weights;
    return error_set(ERROR_FILE, "%s: not %s but %s%s%s", path, expectations[expected].what, kinds[kind].name,
                     advised ? "; " : "", advised ? kinds[kind].advice : "");
}
