// Private to src/plan: which values share bytes.
#ifndef PB_PLAN_STORAGE_H
#define PB_PLAN_STORAGE_H

#include "graph/graph.h"

// storage[v]: the value whose bytes v takes over: of its alias, or of an input that an op may overwrite and that dies
// there. last_read[v]: the last node that reads v, 0 where none does. Both have value_count entries.
void pb_storage_find(const pb_graph *graph, pb_vid *storage, uint32_t *last_read);

#endif
