/* Owns the reading of the linker's note. No state: any thread. */
#include "base/build_id.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

enum { NOTE_ALIGNMENT = 4, SHOWN_BYTES = 10 };

typedef struct {
    const unsigned char *bytes;
    size_t count;
} build_id;

static size_t padded(size_t bytes)
{
    return (bytes + NOTE_ALIGNMENT - 1) / NOTE_ALIGNMENT * NOTE_ALIGNMENT;
}

static void find_in_notes(const unsigned char *at, size_t bytes, build_id *id)
{
    const unsigned char *end = at + bytes;
    while ((size_t)(end - at) > sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) note;
        memcpy(&note, at, sizeof note);
        const unsigned char *name = at + sizeof note, *content = name + padded(note.n_namesz);
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof ELF_NOTE_GNU &&
            memcmp(name, ELF_NOTE_GNU, sizeof ELF_NOTE_GNU) == 0)
            *id = (build_id){content, note.n_descsz};
        at = content + padded(note.n_descsz);
    }
}

/* The program itself comes first; its libraries are not looked at. */
static int look_at_program(struct dl_phdr_info *program, size_t size, void *id)
{
    (void)size;
    for (int i = 0; i < program->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &program->dlpi_phdr[i];
        if (part->p_type == PT_NOTE)
            find_in_notes((const unsigned char *)(program->dlpi_addr + part->p_vaddr), part->p_memsz, id);
    }
    return 1;
}

void program_text(char text[PROGRAM_TEXT_BYTES])
{
    build_id id = {NULL, 0};
    dl_iterate_phdr(look_at_program, &id);
    int used = snprintf(text, PROGRAM_TEXT_BYTES, "%s%s", TESKD_VERSION, id.count > 0 ? ", build " : "");
    for (size_t i = 0; i < id.count && i < SHOWN_BYTES; i++)
        used += snprintf(text + used, PROGRAM_TEXT_BYTES - (size_t)used, "%02x", id.bytes[i]);
}
