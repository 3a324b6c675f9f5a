// fuzz: links=io,base
// Any bytes as a configuration. What is accepted prints, and the print reads back to the same print. Behind a line of
// their own, bytes are also taken for an argument of --set.
#include <stdlib.h>
#include <string.h>

#include "io/run_config.h"
#include "io/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Scalars through every reading of them.
static void read_scalars(const pb_yaml *node) {
    int64_t integer;
    double real;
    bool boolean;
    for (; node; node = node->next) {
        if (node->type != PB_YAML_SCALAR) {
            read_scalars(node->first);
            continue;
        }
        const bool is_int = pb_yaml_int(node, &integer), is_real = pb_yaml_double(node, &real);
        if (is_int && (!is_real || pb_yaml_bool(node, &boolean) || pb_yaml_is_null(node))) abort();
    }
}

static void print_and_read(const pb_config *config) {
    pb_arena *arena = pb_arena_create();
    pb_text first = {0}, second = {0};
    pb_config again;
    pb_config_print(config, &first);
    if (arena && !first.failed && first.bytes <= PB_YAML_BYTES) {
        if (pb_config_init(arena, &again) != PB_OK ||
            pb_config_read(&again, first.data, first.bytes, "printed") != PB_OK) {
            // The cap on brackets is the one thing that a value may run into on its second way in.
            if (!strstr(pb_error_message(), "brackets")) abort();
        } else {
            pb_config_print(&again, &second);
            if (!second.failed && strcmp(first.data, second.data) != 0) abort();
        }
    }
    pb_text_deinit(&first);
    pb_text_deinit(&second);
    pb_arena_destroy(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pb_arena *arena = pb_arena_create();
    pb_config config;
    const pb_yaml *root;
    if (!arena || pb_config_init(arena, &config) != PB_OK) abort();
    pb_error_clear();
    if (pb_yaml_parse(arena, (const char *)data, size, "input", &root) == PB_OK) read_scalars(root);
    pb_error_clear();
    if (pb_config_read(&config, (const char *)data, size, "input") == PB_OK) {
        pb_config_check(&config);
        print_and_read(&config);
    } else if (!*pb_error_message()) {
        abort();
    }
    const char *assignment = pb_arena_string_n(arena, (const char *)data, size < 4096 ? size : 4096);
    if (assignment && pb_config_init(arena, &config) == PB_OK && pb_config_set(&config, assignment) == PB_OK)
        print_and_read(&config);
    pb_arena_destroy(arena);
    return 0;
}
