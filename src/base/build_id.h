/* Which program this is, so that ranks can tell whether they all run the same one. */
#ifndef TESKD_BASE_BUILD_ID_H
#define TESKD_BASE_BUILD_ID_H

enum { PROGRAM_TEXT_BYTES = 128 };

/* "0.1.0, build 5a0c...", the version and the first half of the id that the linker wrote, a checksum of the whole
 * program; the version alone where it wrote none. */
void program_text(char text[PROGRAM_TEXT_BYTES]);

#endif
