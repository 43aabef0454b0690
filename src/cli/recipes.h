/* The recipes that come with the program: INI files in share/teskd/configs, or in configs/ beside a build folder. */
#ifndef TESKD_CLI_RECIPES_H
#define TESKD_CLI_RECIPES_H

#include <stdbool.h>

enum { RECIPE_PATH_BYTES = 4096 };

/* The file that `--config NAME` means: a file of that name or, when there is none and NAME has no slash, the recipe.
 * `is_recipe` says which. ERROR_FILE lists the recipes when there is neither. */
int recipe_find(const char *name, char path[RECIPE_PATH_BYTES], bool *is_recipe);

#endif
