#include "shim_runtime.h"

#include <sys/mman.h>

#ifdef PB_SHIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace {

void (*life_of_all)(void *);

// What AddressSanitizer is told on arrival: whose stack was left. The first arrival learns the scheduler's.
#ifdef PB_SHIM_ASAN
const void *scheduler_stack;
size_t scheduler_bytes;
#endif
shim_fiber *left;

void arrive(void *fake_stack) {
#ifdef PB_SHIM_ASAN
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake_stack, &stack, &bytes);
    if (!left->stack) {
        scheduler_stack = stack;
        scheduler_bytes = bytes;
    }
#else
    (void)fake_stack;
#endif
}

void begin() {
    arrive(NULL);
    life_of_all(NULL);
    abort();
}

}  // namespace

#ifdef __x86_64__
// Saves what a call must preserve, and goes on where `to` was saved.
extern "C" void shim_switch_stacks(void **from, void *to);
__asm__(".text\n"
        ".type shim_switch_stacks, @function\n"
        "shim_switch_stacks:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size shim_switch_stacks, .-shim_switch_stacks\n");
#endif

void shim_fiber_create(shim_fiber *fiber, size_t bytes, void (*life)(void *)) {
    life_of_all = life;
    // A page at the low end stays without access: a stack that grows too far stops the test.
    char *stack = static_cast<char *>(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stack == MAP_FAILED || mprotect(stack, 4096, PROT_NONE)) abort();
    fiber->stack = stack;
    fiber->bytes = bytes;
#ifdef __x86_64__
    void **top = reinterpret_cast<void **>(stack + bytes);
    *--top = NULL;  // what `begin` would return to; a call leaves the stack 8 off a multiple of 16
    *--top = reinterpret_cast<void *>(begin);
    for (int i = 0; i < 6; i++) *--top = NULL;
    fiber->context = top;
#else
    ucontext_t *context = static_cast<ucontext_t *>(calloc(1, sizeof *context));
    if (!context || getcontext(context)) abort();
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = bytes;
    makecontext(context, begin, 0);
    fiber->context = context;
#endif
}

void shim_fiber_switch(shim_fiber *from, shim_fiber *to) {
    left = from;
#ifdef PB_SHIM_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack ? to->stack : scheduler_stack,
                                   to->stack ? to->bytes : scheduler_bytes);
#endif
#ifdef __x86_64__
    shim_switch_stacks(&from->context, to->context);
#else
    if (!from->context && !(from->context = calloc(1, sizeof(ucontext_t)))) abort();
    if (swapcontext(static_cast<ucontext_t *>(from->context), static_cast<ucontext_t *>(to->context))) abort();
#endif
    arrive(from->fake_stack);
}
