/* Folders of image files, a folder per class, in the order of torchvision's ImageFolder: classes sorted by the bytes of
 * their names, in each class the files of a folder before those of its subfolders, sorted likewise. Files are those
 * whose names end in .jpg, .jpeg or .png in any case; links are followed. Errors are ERROR_FILE or ERROR_DATA and name
 * the folder. One thread per listing.
 */
#ifndef TESKD_IO_FILE_CLASS_FOLDERS_H
#define TESKD_IO_FILE_CLASS_FOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t classes;
    char **class_ids;       /* [classes], the folders' names */
    int64_t images, others; /* others: files that are no images by their names */
    int32_t *labels;        /* [images] */
    size_t *paths;          /* [images], where the path begins in `text`: relative to the root, "n01440764/x.JPEG" */
    char *text;
    size_t text_bytes;
} class_folders;

/* Does a file of that name count? */
bool class_folders_is_image(const char *name);

/* What a split's folder may be called (0 training, 1 validation), the usual name first; NULL behind the last. */
enum { CLASS_FOLDERS_SPLITS = 2 };
extern const char *const class_folders_splits[CLASS_FOLDERS_SPLITS][5];

/* The classes alone: `images` stays 0. */
int class_folders_list(class_folders *listing, const char *root);

/* Classes and images. ERROR_DATA, as ImageFolder does, for a class without an image. */
int class_folders_scan(class_folders *listing, const char *root);

static inline const char *class_folders_path(const class_folders *listing, int64_t index)
{
    return listing->text + listing->paths[index];
}

/* Frees what was listed; a cleared listing is fine. */
void class_folders_close(class_folders *listing);

#endif
