#include "base/nearest.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { LONGEST = 63 };

static int min_int(int a, int b) {
    return a < b ? a : b;
}

static int length_of(const char *name) {
    return (int)strnlen(name, LONGEST);
}

static char folded(char c) {
    return c == '-' ? '_' : (char)tolower((unsigned char)c);
}

int pb_name_distance(const char *a, const char *b) {
    int rows[3][LONGEST + 1], a_length = length_of(a), b_length = length_of(b);
    int *before = rows[0], *previous = rows[1], *current = rows[2];
    for (int j = 0; j <= b_length; j++) previous[j] = j;
    for (int i = 1; i <= a_length; i++) {
        current[0] = i;
        for (int j = 1; j <= b_length; j++) {
            char x = folded(a[i - 1]), y = folded(b[j - 1]);
            int best = previous[j - 1] + (x != y);
            best = min_int(best, min_int(previous[j], current[j - 1]) + 1);
            if (i > 1 && j > 1 && x == folded(b[j - 2]) && folded(a[i - 2]) == y)
                best = min_int(best, before[j - 2] + 1);
            current[j] = best;
        }
        int *oldest = before;
        before = previous;
        previous = current;
        current = oldest;
    }
    return previous[b_length];
}

static bool is_prefix(const char *a, const char *b) {
    int shorter = min_int(length_of(a), length_of(b));
    for (int i = 0; i < shorter; i++)
        if (folded(a[i]) != folded(b[i])) return false;
    return shorter >= 3;
}

const char *pb_nearest_name(const char *name, const char *const *names, int count) {
    const char *nearest = NULL;
    int best = INT_MAX;
    for (int i = 0; i < count; i++) {
        if (!names[i]) continue;
        int longer = length_of(names[i]) > length_of(name) ? length_of(names[i]) : length_of(name);
        int limit = longer < 6 ? (longer + 1) / 3 : longer / 3 > 2 ? longer / 3 : 2;
        int distance = pb_name_distance(name, names[i]);
        if (distance > limit && !is_prefix(name, names[i])) continue;
        if (distance < best) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}
