#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/byte_size.h"
#include "base/nearest.h"

enum { NAMES_MAX = 64, NAME_BYTES = 64, HELP_COLUMN = 28 };

// --- Help ---

static void print_indented(const char *text, int column) {
    for (const char *c = text; *c; c++) {
        putchar(*c);
        if (*c == '\n') printf("%*s", column, "");
    }
    putchar('\n');
}

static void print_row(const char *left, const char *help) {
    int width = printf("  %s", left);
    if (width >= HELP_COLUMN) {
        putchar('\n');
        width = 0;
    }
    printf("%*s", HELP_COLUMN - width, "");
    print_indented(help, HELP_COLUMN);
}

static void print_help(const pb_command_line *line, const char *command) {
    printf("Usage: pagebooth %s", command);
    for (int i = 0; i < line->positional_count; i++) {
        const pb_positional *positional = &line->positionals[i];
        printf(positional->optional ? " [%s%s]" : " %s%s", positional->name, positional->list ? "..." : "");
    }
    printf("%s\n\n%s\n", line->option_count ? " [OPTION]..." : "", line->summary);
    if (line->positional_count) printf("\nArguments:\n");
    for (int i = 0; i < line->positional_count; i++) print_row(line->positionals[i].name, line->positionals[i].help);
    printf("\nOptions:\n");
    for (int i = 0; i < line->option_count; i++) {
        const pb_option *option = &line->options[i];
        char left[128];
        snprintf(left, sizeof left, "%s%s%s%s%s", option->short_name ? option->short_name : "",
                 option->short_name ? ", " : "", option->name, option->placeholder ? " " : "",
                 option->placeholder ? option->placeholder : "");
        print_row(left, option->help);
    }
    print_row("-h, --help", "This text.");
    if (line->epilogue) printf("\n%s\n", line->epilogue);
}

// --- Parsing ---

// "--opt" of "--opt=value" has its length without the value.
static bool matches(const pb_option *option, const char *argument, size_t bytes) {
    if (strlen(option->name) == bytes && !memcmp(option->name, argument, bytes)) return true;
    return option->short_name && strlen(option->short_name) == bytes && !memcmp(option->short_name, argument, bytes);
}

static pb_status unknown_option(const pb_command_line *line, const char *command, const char *argument, size_t bytes) {
    const char *names[NAMES_MAX];
    char name[NAME_BYTES];
    int count = 0;
    for (; count < line->option_count && count < NAMES_MAX - 1; count++) names[count] = line->options[count].name;
    names[count++] = "--help";
    snprintf(name, sizeof name, "%.*s", (int)bytes, argument);
    const char *nearest = pb_nearest_name(name, names, count);
    if (nearest) return pb_error(PB_ERR_USAGE, "unknown option %s: did you mean %s?", name, nearest);
    for (int i = 0; i < line->option_count; i++)
        if (!strcmp(line->options[i].name, "--set"))
            return pb_error(PB_ERR_USAGE,
                            "unknown option %s (`pagebooth help %s` lists those that there are; a key of the "
                            "configuration is given as --set KEY=VALUE)",
                            name, command);
    return pb_error(PB_ERR_USAGE, "unknown option %s (`pagebooth help %s` lists those that there are)", name, command);
}

static pb_status append(pb_option_list *list, const char *name, const char *value) {
    if (list->count == PB_OPTION_LIST_MAX)
        return pb_error(PB_ERR_USAGE, "%s: more than %d are given", name, PB_OPTION_LIST_MAX);
    list->item[list->count++] = value;
    return PB_OK;
}

static pb_status parse_option(const pb_command_line *line, int argc, char **argv, int *index) {
    const char *argument = argv[*index], *equals = strchr(argument, '='), *value = equals ? equals + 1 : NULL;
    size_t bytes = equals ? (size_t)(equals - argument) : strlen(argument);
    const pb_option *option = NULL;
    for (int i = 0; i < line->option_count && !option; i++)
        if (matches(&line->options[i], argument, bytes)) option = &line->options[i];
    if (!option) return unknown_option(line, argv[0], argument, bytes);
    if (option->flag) {
        if (value) return pb_error(PB_ERR_USAGE, "%s takes no value (it was given `%s`)", option->name, value);
        *option->flag = true;
        return PB_OK;
    }
    if (!value) {
        if (*index + 1 >= argc)
            return pb_error(PB_ERR_USAGE, "%s needs a value: %s", option->name, option->placeholder);
        value = argv[++*index];
    }
    if (option->list) return append(option->list, option->name, value);
    *option->text = value;
    return PB_OK;
}

static pb_status take_positional(const pb_command_line *line, int *taken, const char *value) {
    if (*taken >= line->positional_count) return pb_error(PB_ERR_USAGE, "there is an argument too many: `%s`", value);
    const pb_positional *positional = &line->positionals[*taken];
    if (positional->list) return append(positional->list, positional->name, value);
    *positional->text = value;
    ++*taken;
    return PB_OK;
}

static bool looks_like_option(const char *argument) {
    return argument[0] == '-' && argument[1] && !isdigit((unsigned char)argument[1]) && argument[1] != '.';
}

pb_status pb_options_parse(const pb_command_line *line, int argc, char **argv, bool *done) {
    int taken = 0;
    bool options_ended = false;
    *done = false;
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (!options_ended && !strcmp(argument, "--")) {
            options_ended = true;
        } else if (!options_ended && (!strcmp(argument, "--help") || !strcmp(argument, "-h"))) {
            print_help(line, argv[0]);
            *done = true;
            return PB_OK;
        } else if (!options_ended && looks_like_option(argument)) {
            PB_RETURN_IF(parse_option(line, argc, argv, &i));
        } else {
            PB_RETURN_IF(take_positional(line, &taken, argument));
        }
    }
    if (taken < line->positional_count) {
        const pb_positional *missing = &line->positionals[taken];
        if (!missing->optional && !(missing->list && missing->list->count))
            return pb_error(PB_ERR_USAGE, "%s is missing: %s", missing->name, missing->help);
    }
    return PB_OK;
}

// --- Values ---

// strtod and its like skip leading space, which no value should have.
static bool starts_like_a_number(const char *text) {
    return isdigit((unsigned char)text[0]) || text[0] == '-' || text[0] == '+' || text[0] == '.';
}

pb_status pb_parse_int(const char *name, const char *text, int64_t low, int64_t high, int64_t *value) {
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (!starts_like_a_number(text) || end == text || *end)
        return pb_error(PB_ERR_USAGE, "%s: `%s` is no integer", name, text);
    if (errno == ERANGE || number < low || number > high)
        return pb_error(PB_ERR_USAGE, "%s: %s is not between %lld and %lld", name, text, (long long)low,
                        (long long)high);
    *value = number;
    return PB_OK;
}

pb_status pb_parse_uint64(const char *name, const char *text, uint64_t *value) {
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno == ERANGE)
        return pb_error(PB_ERR_USAGE, "%s: `%s` is no integer from 0 to 18446744073709551615", name, text);
    *value = number;
    return PB_OK;
}

pb_status pb_parse_double(const char *name, const char *text, double low, double high, double *value) {
    char *end;
    double number = strtod(text, &end);
    if (!starts_like_a_number(text) || end == text || *end || !isfinite(number))
        return pb_error(PB_ERR_USAGE, "%s: `%s` is no number", name, text);
    if (number < low || number > high)
        return pb_error(PB_ERR_USAGE, "%s: %s is not between %g and %g", name, text, low, high);
    *value = number;
    return PB_OK;
}

pb_status pb_parse_bytes(const char *name, const char *text, int64_t *bytes) {
    if (pb_byte_size_parse(text, bytes)) return PB_OK;
    return pb_error(PB_ERR_USAGE, "%s: `%s` is no amount of memory; write it as 16GiB, 512MiB or a number of bytes",
                    name, text);
}

pb_status pb_parse_extent(const char *name, const char *text, int *width, int *height) {
    int w = 0, h = 0, used = 0;
    bool shaped =
        isdigit((unsigned char)text[0]) && strlen(text) <= 15 && sscanf(text, "%7dx%7d%n", &w, &h, &used) == 2;
    if (!shaped || text[used] || w < 1 || h < 1 || w > 1048576 || h > 1048576)
        return pb_error(PB_ERR_USAGE, "%s: `%s` is no size; write WIDTHxHEIGHT, as 512x512", name, text);
    *width = w;
    *height = h;
    return PB_OK;
}

pb_status pb_parse_choice(const char *name, const char *text, const char *const *choices, int count, int *index) {
    char listed[512] = "";
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        if (!strcmp(text, choices[i])) {
            *index = i;
            return PB_OK;
        }
        if (used < sizeof listed)
            used += (size_t)snprintf(listed + used, sizeof listed - used, "%s%s", i ? ", " : "", choices[i]);
    }
    const char *nearest = pb_nearest_name(text, choices, count);
    if (nearest) return pb_error(PB_ERR_USAGE, "%s: unknown value `%s`: did you mean %s?", name, text, nearest);
    return pb_error(PB_ERR_USAGE, "%s: unknown value `%s`; it is one of %s", name, text, listed);
}
