/* What a file is by its first bytes, so that a wrong file is called what it is. Any thread. */
#ifndef TESKD_IO_FILE_FILE_KIND_H
#define TESKD_IO_FILE_FILE_KIND_H

typedef enum {
    FILE_UNKNOWN, /* nothing that is told apart here: the reader says what it misses */
    FILE_FOLDER,
    FILE_NO_STORAGE, /* a pipe or a device: nothing that can be read at any place */
    FILE_EMPTY,
    FILE_LFS_POINTER,
    FILE_WEB_PAGE,
    FILE_JSON,
    FILE_CHECKPOINT, /* of this program */
    FILE_HDF5,
    FILE_SAFETENSORS,
    FILE_ONNX,
    FILE_PYTORCH,
    FILE_PICKLE,
    FILE_ZIP,
    FILE_COMPRESSED,
    FILE_KINDS
} file_kind;

/* Never waits, also not for a pipe's other end. Negative: ERROR_FILE, with the system's reason. */
int file_kind_of(const char *path);

/* What a reader expects. */
typedef enum { EXPECT_CHECKPOINT, EXPECT_REFERENCE, EXPECT_SAFETENSORS, EXPECT_RECORDS } file_expectation;

/* ERROR_FILE when the file is known to be of another kind than expected; the message says what it is and what can be
 * done. */
int file_kind_check(const char *path, file_expectation expected);

#endif
