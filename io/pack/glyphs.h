/* Letters of 5 x 7 dots, for labels on a sheet. Small letters look like capitals; what has no glyph is a box. */
#ifndef TESKD_IO_PACK_GLYPHS_H
#define TESKD_IO_PACK_GLYPHS_H

#include <stdint.h>

enum { GLYPH_WIDTH = 5, GLYPH_HEIGHT = 7 };

/* Rows from the top; the leftmost dot is bit 4. */
const uint8_t *glyph_rows(char letter);

#endif
