// A counter that only grows and that threads sleep on: what one thread has got to, for others to wait for. Whatever was
// written before a value is set is seen by those who have waited for it.
#ifndef PB_BASE_GATE_H
#define PB_BASE_GATE_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct pb_gate {
    _Atomic(uint64_t) value;
    _Atomic(uint32_t) word;  // changes with the value; what the system lets threads sleep on
    _Atomic(uint32_t) sleepers;
} pb_gate;  // zeroed: at 0

uint64_t pb_gate_value(const pb_gate *gate);
// From one thread at a time. A value that is not above the present one changes nothing.
void pb_gate_set(pb_gate *gate, uint64_t value);
// One more; from any thread.
void pb_gate_add(pb_gate *gate);
// Returns when the value is `value` or more. Looks for a moment, then sleeps.
void pb_gate_wait(pb_gate *gate, uint64_t value);

#endif
