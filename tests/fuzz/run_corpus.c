/* In a build without libFuzzer: runs every file of the given folders, as a test of what was once found. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static int run_file(const char *path)
{
    uint8_t *bytes = NULL;
    size_t count = 0;
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return -1;
    long length = ftell(file);
    rewind(file);
    bytes = malloc(length > 0 ? (size_t)length : 1); /* exactly as long, so that a sanitizer sees a byte too many */
    if (bytes)
        count = fread(bytes, 1, (size_t)length, file);
    fclose(file);
    if (bytes && count == (size_t)length)
        LLVMFuzzerTestOneInput(bytes, count);
    free(bytes);
    return count == (size_t)length ? 0 : -1;
}

static int run_folder(const char *path)
{
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort), run = 0;
    for (int i = 0; i < count; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && run >= 0)
            run = run_file(file) == 0 ? run + 1 : -1;
        if (run < 0)
            fprintf(stderr, "%s: cannot read\n", file);
        free(names[i]);
    }
    free(count < 0 ? NULL : names);
    return run;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int run = run_folder(argv[i]);
        if (run <= 0) {
            fprintf(stderr, "%s: no inputs that could be run\n", argv[i]);
            return 1;
        }
        printf("%s: %d inputs\n", argv[i], run);
    }
    return 0;
}
