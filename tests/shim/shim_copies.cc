// Asynchronous copies, as early or as late as CUDA allows: forward they are made when they are begun, reversed when
// their thread waits for them, and at random either. So who overwrites what is still read, or reads what nobody has
// waited for, is found out in some order.
#include "shim_runtime.h"

namespace {

constexpr int MOST_THREADS = 1024, MOST_COPIES = 64;

struct copy {
    void *to;
    const void *from;
    int bytes, group;
};

struct {
    copy pending[MOST_COPIES];
    int count, groups;  // groups: that were committed
} copies[MOST_THREADS];
uint64_t random_bits = 1;

void make(const copy &c) {
    if (c.from)
        memcpy(c.to, c.from, (size_t)c.bytes);
    else
        memset(c.to, 0, (size_t)c.bytes);
}

}  // namespace

void shim_copy_async(void *to, const void *from, int bytes) {
    auto &mine = copies[threadIdx.x];
    const copy c = {to, from, bytes, mine.groups};
    if ((uintptr_t)to % (unsigned)bytes || (uintptr_t)from % (unsigned)bytes)
        shim_fault("a copy of %d bytes from %p to %p is not aligned", bytes, from, to);
    if (!shim_is_shared(to, (size_t)bytes)) shim_fault("an asynchronous copy goes to what is not shared memory");
    watch_copy(to, from, bytes, mine.groups, __builtin_return_address(0));
    random_bits = random_bits * 6364136223846793005u + 1442695040888963407u;
    const shim_order order = shim_order_now();
    if (order == SHIM_FORWARD || (order == SHIM_RANDOM && random_bits >> 63)) {
        make(c);
    } else {
        if (mine.count == MOST_COPIES) abort();
        mine.pending[mine.count++] = c;
    }
}

void commit_copies() {
    copies[threadIdx.x].groups++;
}

void shim_wait_copies(int groups, const char *file, int line) {
    if (shim_is_left_out(file, line)) return;
    auto &mine = copies[threadIdx.x];
    int left = 0;
    for (int i = 0; i < mine.count; i++) {
        if (mine.pending[i].group < mine.groups - groups)
            make(mine.pending[i]);
        else
            mine.pending[left++] = mine.pending[i];
    }
    mine.count = left;
    watch_wait(mine.groups - groups);
}

bool shim_forget_copies() {
    bool any = false;
    for (auto &of_thread : copies) {
        any = any || of_thread.count;
        of_thread.count = of_thread.groups = 0;
    }
    return any;
}
