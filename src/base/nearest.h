// "Did you mean": the known name that is nearest to a mistyped one.
#ifndef PB_BASE_NEAREST_H
#define PB_BASE_NEAREST_H

// Characters inserted, deleted, replaced or swapped with their neighbour to get from `a` to `b` (restricted
// Damerau-Levenshtein distance); case and the difference between '-' and '_' are free. Names longer than 63 bytes are
// compared by their first 63.
int pb_name_distance(const char *a, const char *b);

// The nearest of `count` names (NULL entries are skipped), or NULL where none is near enough to be what was meant:
// within 2 edits, or a third of the length of the longer, or sharing a whole prefix of at least 3 characters.
const char *pb_nearest_name(const char *name, const char *const *names, int count);

#endif
