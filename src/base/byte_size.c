#include "base/byte_size.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool pb_byte_size_parse(const char *text, int64_t *bytes) {
    static const struct {
        const char *name;
        double bytes;
    } units[] = {
        // clang-format off
        {"", 1},         {"B", 1},
        {"K", 0x1p10},   {"M", 0x1p20},   {"G", 0x1p30},   {"T", 0x1p40},
        {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
        // clang-format on
    };
    char *unit;
    const size_t digits = strspn(text, "0123456789.");
    const double number = strtod(text, &unit);
    if (!digits || unit != text + digits) return false;
    unit += strspn(unit, " ");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcasecmp(unit, units[i].name) != 0 || number * units[i].bytes > 0x1p62) continue;
        *bytes = (int64_t)(number * units[i].bytes);
        return true;
    }
    return false;
}
