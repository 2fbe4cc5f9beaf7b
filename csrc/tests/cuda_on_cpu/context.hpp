// A place where execution can be left and gone on with, each on a stack of its own.
//
// swapcontext asks the kernel for the signal mask every time, and AddressSanitizer forgets what it knows of a
// stack: where the few instructions that are needed are known, they take a twentieth of the time.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && defined(__linux__)
#define RETINAFACE_OWN_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

#ifdef RETINAFACE_OWN_SWITCH

struct Context {
    void* stack_pointer = nullptr;
};

// Saves what a function must preserve (System V ABI, 3.2.1) on the stack that is left.
extern "C" void retinaface_switch_context(void** left, void* to);
asm(R"(
    .text
    .p2align 4
    .type retinaface_switch_context, @function
retinaface_switch_context:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size retinaface_switch_context, .-retinaface_switch_context
)");

// `run` begins when the context is first switched to, and must not return.
inline void prepare(Context& context, void* stack, std::size_t bytes, void (*run)()) {
    // Six registers, the address to return to, and none that `run` could return to: on entry the stack is
    // aligned as after a call.
    void** const top = static_cast<void**>(stack) + bytes / sizeof(void*) - 8;
    for (int i = 0; i < 8; ++i) top[i] = nullptr;
    top[6] = reinterpret_cast<void*>(run);
    context.stack_pointer = top;
}

inline void switch_context(Context& left, const Context& to) {
    retinaface_switch_context(&left.stack_pointer, to.stack_pointer);
}

#else

struct Context {
    ucontext_t state;
};

inline void prepare(Context& context, void* stack, std::size_t bytes, void (*run)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, run, 0);
}

inline void switch_context(Context& left, const Context& to) { swapcontext(&left.state, &to.state); }

#endif

}  // namespace cuda_on_cpu
