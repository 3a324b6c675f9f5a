// Command lines by table. A command describes its options and positional arguments once; parsing, the messages about
// mistakes and the text of --help come from the table.
#ifndef PB_CLI_OPTIONS_H
#define PB_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { PB_OPTION_LIST_MAX = 256 };

// Values of something that may be given more than once, in the order given. They point into argv.
typedef struct pb_option_list {
    const char *item[PB_OPTION_LIST_MAX];
    int count;
} pb_option_list;

// One option. Exactly one of flag, text and list is set; what it points to keeps its value (the default) when the
// option is not given. `--name value`, `--name=value`, `-n value`; of a `text` the last one counts.
typedef struct pb_option {
    const char *name;         // with its dashes: "--set"
    const char *short_name;   // "-o" or NULL
    const char *placeholder;  // of the value in the help: "FILE"; NULL for a flag
    const char *help;         // one sentence; name the default; may hold '\n'
    bool *flag;               // becomes true
    const char **text;
    pb_option_list *list;
} pb_option;

// Rows of the table; `letter` ("-o") may be NULL.
#define PB_OPTION_FLAG(long_name, letter, target, sentence) \
    { .name = (long_name), .short_name = (letter), .help = (sentence), .flag = (target) }
#define PB_OPTION_TEXT(long_name, letter, value, target, sentence) \
    { .name = (long_name), .short_name = (letter), .placeholder = (value), .help = (sentence), .text = (target) }
#define PB_OPTION_LIST(long_name, letter, value, target, sentence) \
    { .name = (long_name), .short_name = (letter), .placeholder = (value), .help = (sentence), .list = (target) }

// One argument by its place. `text` takes one, `list` takes all that are left.
typedef struct pb_positional {
    const char *name;  // "CONFIG"
    const char *help;
    const char **text;
    pb_option_list *list;
    bool optional;
} pb_positional;

typedef struct pb_command_line {
    const char *summary;  // what the command does, in a sentence or a few; may hold '\n'
    const pb_positional *positionals;
    int positional_count;
    const pb_option *options;
    int option_count;
    const char *epilogue;  // printed after the options (examples), or NULL
} pb_command_line;

#define PB_COUNT_OF(array) ((int)(sizeof(array) / sizeof *(array)))

// Parses argv[1..]. `--help` and `-h` print the help to stdout and set *done: the caller then returns PB_OK at once.
// "--" ends the options. A number such as -5 is a value, never an option. Errors: PB_ERR_USAGE.
pb_status pb_options_parse(const pb_command_line *line, int argc, char **argv, bool *done);

// --- Values. `name` is what the user typed it for ("--steps"), for the message. Errors: PB_ERR_USAGE. ---
pb_status pb_parse_int(const char *name, const char *text, int64_t low, int64_t high, int64_t *value);
pb_status pb_parse_uint64(const char *name, const char *text, uint64_t *value);
pb_status pb_parse_double(const char *name, const char *text, double low, double high, double *value);  // finite
// As pb_byte_size_parse.
pb_status pb_parse_bytes(const char *name, const char *text, int64_t *bytes);
// "640x512": width, then height; each from 1 to 1,048,576.
pb_status pb_parse_extent(const char *name, const char *text, int *width, int *height);
// The index in `count` names; the message lists them and names the nearest.
pb_status pb_parse_choice(const char *name, const char *text, const char *const *choices, int count, int *index);

#endif
