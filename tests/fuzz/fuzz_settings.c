/* Reads an INI file over the defaults. What is accepted must write and read back to the same text. */
#include "base/settings.h"
#include "fuzz.h"
#include "input_file.h"

#include <stdlib.h>
#include <string.h>

static void check_round_trip(const settings *s)
{
    settings again;
    settings_default(&again);
    char *text = settings_to_text(s), *other = NULL;
    if (text && settings_parse_text(&again, text, "written") < 0)
        abort();
    if (text)
        other = settings_to_text(&again);
    if (other && strcmp(text, other) != 0)
        abort();
    free(text);
    free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    settings s;
    settings_default(&s);
    if (settings_load(&s, input_file(bytes, count)) < 0)
        return 0;
    settings_validate(&s);
    check_round_trip(&s);
    return 0;
}
