/* Holds the decoding and scaling of images against a table of what they must be. */
#ifndef TESKD_TOOLS_REFERENCE_IMAGES_H
#define TESKD_TOOLS_REFERENCE_IMAGES_H

#include <stdio.h>

/* The table is a CSV file with a line of names and the columns path,kind,x,y,w,h,out_w,out_h,crc32; `path` is looked
 * for in `root`. `kind` is decode  the whole image crop    the w x h pixels at (x, y), scaled to out_w x out_h eval the
 * whole image scaled to out_w x out_h, of that the w x h pixels at (x, y) error   an image that must be refused crc32
 * is that of the RGB bytes, as eight hexadecimal digits. Prints a line for each row that differs and last how many
 * agree. Returns 0, ERROR_MISMATCH when a row differs, or another failure. */
int compare_images(const char *table, const char *root, FILE *out);

#endif
