// Runs kernels: the blocks of a grid one after the other, the threads of a block as fibers.
//
// Never compiled with -fsanitize=thread (RETINAFACE_RACE_CHECK says that the rest is): what the fibers share
// here is no race of the kernel's, and what orders them is told to the checker by hand.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>

#include "context.hpp"
#include "runtime.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // NOLINT(bugprone-reserved-identifier): as gcc says it
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
// Of sanitizer/common_interface_defs.h, which not every tool that reads this has.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" void __sanitizer_start_switch_fiber(void** fake_stack, const void* stack, std::size_t bytes);
extern "C" void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_stack,
                                                std::size_t* old_bytes);
// NOLINTEND(bugprone-reserved-identifier)
#endif
#ifdef RETINAFACE_RACE_CHECK
#include <sanitizer/tsan_interface.h>
// Of the same library, for the runtimes of languages that manage memory themselves: memory that is handed out
// anew, which nothing has touched.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" void __tsan_java_init(unsigned long begin, unsigned long bytes);
extern "C" void __tsan_java_alloc(unsigned long memory, unsigned long bytes);
extern "C" void __tsan_java_free(unsigned long memory, unsigned long bytes);
// All that is __shared__, as the linker puts it together.
extern "C" char __start_cuda_shared[] __attribute__((weak));
extern "C" char __stop_cuda_shared[] __attribute__((weak));
// NOLINTEND(bugprone-reserved-identifier)
#endif

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace cuda_on_cpu {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kWordBits = 64;
// Enough for the report of a sanitizer. Memory that is never touched is never there.
constexpr std::size_t kStackBytes = std::size_t{256} << 10U;

struct Fiber {
    Context context;
    const void* stack = nullptr;  // lowest address
    std::size_t stack_bytes = 0;
    void* fake_stack = nullptr;    // of AddressSanitizer
    void* race_context = nullptr;  // of ThreadSanitizer, the one in use
    void* race_contexts[2] = {};   // see begin_block_for_races
};

enum class State { ready, at_barrier, in_collective, done };

struct Thread {
    const char* collective = "";
    std::uint64_t value = 0;
    Fiber fiber;
    std::uint64_t values[32];
    State state = State::done;
    unsigned mask = 0;
    unsigned participants = 0;
    uint3 index;
    char order[2] =
        {};  // the address: what the lanes of a collective that this one is the lowest of wait for
};

// One launch at a time: the lock is held from its beginning to its end.
std::mutex launching;
Thread threads[kMaxThreads];
Fiber host;
Thread* current = nullptr;  // null: the host
Fiber* left = nullptr;      // who was switched from
unsigned count = 0;         // threads of a block
unsigned alive = 0;
unsigned at_barrier = 0;
unsigned turn = 0;                             // of two blocks that the race checker tells apart
unsigned barriers = 0;                         // that the block has passed
std::uint64_t ready[kMaxThreads / kWordBits];  // bits of the threads that can go on
unsigned alive_lanes[kMaxThreads / 32];        // bits of each warp
char barrier_order[2][2], grid_begin, grid_end, fence_order;  // addresses, see Thread::order
void (*kernel_body)(const void*) = nullptr;
const void* kernel_call = nullptr;
std::uint64_t order = kInOrder;
std::uint64_t random_state = 1;

std::uint64_t next_random() {
    random_state ^= random_state << 13U;
    random_state ^= random_state >> 7U;
    random_state ^= random_state << 17U;
    return random_state;
}

// --- what ThreadSanitizer is told

void race_release([[maybe_unused]] const void* address) {
#ifdef RETINAFACE_RACE_CHECK
    __tsan_release(const_cast<void*>(address));
#endif
}

void race_acquire([[maybe_unused]] const void* address) {
#ifdef RETINAFACE_RACE_CHECK
    __tsan_acquire(const_cast<void*>(address));
#endif
}

// Blocks have no order among each other: all come after the launch and before its end. A thread of the
// checker for each thread of each block would take it minutes, so two blocks in turn have their own: of any
// two that run one after the other it sees that nothing orders them. (Which those are, that is the schedule's
// to choose.) What a block finds in its shared memory and on its stacks nothing has touched.
#ifdef RETINAFACE_RACE_CHECK
// Of a stack, what a kernel needs; what lies below is the runtime's and not looked at.
constexpr std::size_t kFreshStackBytes = std::size_t{8} << 10U;

void forget(const void* memory, std::size_t bytes) {
    static const bool told = [] {
        constexpr unsigned long kGranule = 4096;
        __tsan_java_init(kGranule, (1UL << 47U) - 2 * kGranule);
        return true;
    }();
    static_cast<void>(told);
    const auto begin = reinterpret_cast<unsigned long>(memory);
    if (bytes == 0) return;
    __tsan_java_free(begin, bytes);
    __tsan_java_alloc(begin, bytes);
}

void begin_block_for_races() {
    turn = 1 - turn;
    host.race_context = __tsan_get_current_fiber();
    if (__start_cuda_shared != nullptr) {
        const auto bytes = static_cast<std::size_t>(__stop_cuda_shared - __start_cuda_shared);
        forget(__start_cuda_shared, (bytes + 7) / 8 * 8);
    }
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = threads[i].fiber;
        forget(static_cast<const char*>(fiber.stack) + kStackBytes - kFreshStackBytes, kFreshStackBytes);
        void*& context = fiber.race_contexts[turn];
        if (context == nullptr) context = __tsan_create_fiber(0);
        fiber.race_context = context;
    }
}
#endif

// --- fibers

void arrived(const Fiber& self) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(self.fake_stack, &left->stack, &left->stack_bytes);
#else
    static_cast<void>(self);
#endif
}

void switch_to(Fiber& from, const Fiber& to) {
    left = &from;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef RETINAFACE_RACE_CHECK
    __tsan_switch_to_fiber(to.race_context, __tsan_switch_to_fiber_no_sync);
#endif
    switch_context(from.context, to.context);
    arrived(from);
}

[[noreturn]] void stop(const char* what) {
    std::fprintf(stderr, "cuda_on_cpu: %s, block (%u, %u, %u), thread (%u, %u, %u)\n", what, blockIdx.x,
                 blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    for (unsigned i = 0, lines = 0; i < count && lines < 64; ++i) {
        const Thread& thread = threads[i];
        if (thread.state == State::at_barrier) {
            std::fprintf(stderr, "  thread %u waits in __syncthreads\n", i);
        } else if (thread.state == State::in_collective) {
            std::fprintf(stderr, "  thread %u waits in %s, mask %08x\n", i, thread.collective, thread.mask);
        } else {
            continue;
        }
        ++lines;
    }
    std::fflush(stderr);
    std::abort();
}

void set_ready(unsigned i) {
    threads[i].state = State::ready;
    ready[i / kWordBits] |= std::uint64_t{1} << (i % kWordBits);
}

// The first thread from `from` on that can go on, around the end; count if there is none.
unsigned ready_from(unsigned from) {
    const unsigned words = (count + kWordBits - 1) / kWordBits;
    for (unsigned k = 0; k <= words; ++k) {
        const unsigned word = (from / kWordBits + k) % words;
        std::uint64_t bits = ready[word];
        if (k == 0) bits &= ~std::uint64_t{0} << (from % kWordBits);
        if (bits != 0) return word * kWordBits + static_cast<unsigned>(__builtin_ctzll(bits));
    }
    return count;
}

unsigned last_ready() {
    for (unsigned word = (count + kWordBits - 1) / kWordBits; word-- > 0;) {
        if (ready[word] != 0) {
            return word * kWordBits + kWordBits - 1 - static_cast<unsigned>(__builtin_clzll(ready[word]));
        }
    }
    return count;
}

unsigned choose() {
    if (count == 0) return 0;
    if (order == kInOrder) return ready_from(0);
    if (order == kReversed) return last_ready();
    return ready_from(static_cast<unsigned>(next_random() % count));
}

// Lets others go on until this one can.
void give_way() {
    Thread& self = *current;
    unsigned next = choose();
    if (next == count && at_barrier != 0 && at_barrier == alive) {
        for (unsigned i = 0; i < count; ++i) {
            if (threads[i].state == State::at_barrier) set_ready(i);
        }
        at_barrier = 0;
        ++barriers;
        next = choose();
    }
    if (next == count) {
        if (alive != 0) stop("deadlock: threads wait for others that never come");
        current = nullptr;
        switch_to(self.fiber, host);
    } else {
        ready[next / kWordBits] &= ~(std::uint64_t{1} << (next % kWordBits));
        current = &threads[next];
        threadIdx = current->index;
        if (current != &self) switch_to(self.fiber, current->fiber);
    }
}

bool same_collective(const Thread& a, const Thread& b) {
    return a.collective == b.collective || std::strcmp(a.collective, b.collective) == 0;
}

// Lets the lanes of a collective go on if all are there.
void complete(unsigned first, unsigned lane) {
    const Thread& self = threads[first + lane];
    const unsigned participants = self.mask & alive_lanes[first / 32];
    bool all = true;
    for (unsigned i = 0; i < 32; ++i) {
        if ((participants >> i & 1U) == 0) continue;
        const Thread& other = threads[first + i];
        if (other.state != State::in_collective) {
            all = false;
        } else if (other.mask != self.mask || !same_collective(other, self)) {
            if ((other.mask >> lane & 1U) != 0) stop("lanes of a warp meet in different collectives");
            all = false;
        }
    }
    if (!all) return;
    for (unsigned i = 0; i < 32; ++i) {
        if ((participants >> i & 1U) == 0) continue;
        Thread& other = threads[first + i];
        other.participants = participants;
        for (unsigned k = 0; k < 32; ++k) {
            if ((participants >> k & 1U) != 0) other.values[k] = threads[first + k].value;
        }
        set_ready(first + i);
    }
}

// The lanes that wait may have waited for one that has returned.
void end_of_thread(unsigned i) {
    race_release(&grid_end);
    const unsigned first = i / 32 * 32;
    threads[i].state = State::done;
    --alive;
    alive_lanes[i / 32] &= ~(1U << (i % 32));
    for (unsigned lane = 0; lane < 32 && first + lane < count; ++lane) {
        if (threads[first + lane].state == State::in_collective) complete(first, lane);
    }
    give_way();
}

// A fiber runs the thread of its number in one block after the other.
void run_fiber() {
    arrived(current->fiber);
    while (true) {
        race_acquire(&grid_begin);
        kernel_body(kernel_call);
        end_of_thread(static_cast<unsigned>(current - threads));
    }
}

void make_fiber(Fiber& fiber) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    void* const memory =
        mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // A stack grows downwards, into a page that cannot be written.
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) stop("no memory for a stack");
    void* const stack = static_cast<char*>(memory) + page;
    fiber.stack = stack;
    fiber.stack_bytes = kStackBytes;
    prepare(fiber.context, stack, kStackBytes, run_fiber);
}

void run_block() {
    alive = count;
    at_barrier = barriers = 0;
    for (unsigned i = 0; i < count; ++i) {
        Thread& thread = threads[i];
        if (thread.fiber.stack == nullptr) make_fiber(thread.fiber);
        thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
        set_ready(i);
        if (i % 32 == 0) alive_lanes[i / 32] = 0;
        alive_lanes[i / 32] |= 1U << (i % 32);
    }
#ifdef RETINAFACE_RACE_CHECK
    begin_block_for_races();
#endif
    const unsigned first = choose();
    ready[first / kWordBits] &= ~(std::uint64_t{1} << (first % kWordBits));
    current = &threads[first];
    threadIdx = current->index;
    switch_to(host, current->fiber);
}

}  // namespace

void schedule(std::uint64_t wanted) {
    const std::lock_guard<std::mutex> lock(launching);
    order = wanted;
    random_state = wanted * 0x9E3779B97F4A7C15U | 1U;
}

void barrier() {
    Thread& self = *current;
    const char* const ordered = &barrier_order[turn][barriers % 2];
    race_release(ordered);
    self.state = State::at_barrier;
    ++at_barrier;
    give_way();
    race_acquire(ordered);
}

Exchange collective(const char* name, unsigned mask, std::uint64_t value, bool orders_memory) {
    Thread& self = *current;
    const auto i = static_cast<unsigned>(current - threads);
    const unsigned lane = i % 32;
    self.collective = name;
    self.mask = mask;
    self.value = value;
    self.state = State::in_collective;
    if ((mask >> lane & 1U) == 0) stop("a collective whose mask does not hold the caller");
    const char* const ordered =
        &threads[i - lane + static_cast<unsigned>(__builtin_ctz(mask & alive_lanes[i / 32]))].order[turn];
    if (orders_memory) race_release(ordered);
    complete(i - lane, lane);
    give_way();
    if (orders_memory) race_acquire(ordered);
    return {lane, self.participants, self.values};
}

void fence() {
    race_release(&fence_order);
    race_acquire(&fence_order);
}

cudaError_t run_grid(const cudaLaunchConfig_t& config, void (*body)(const void*), const void* call) {
    const dim3 grid = config.gridDim;
    const dim3 block = config.blockDim;
    const std::uint64_t block_threads = std::uint64_t{block.x} * block.y * block.z;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFFU || grid.y > 65535 ||
        grid.z > 65535 || block_threads == 0 || block.x > kMaxThreads || block.y > kMaxThreads ||
        block.z > 64 || block_threads > kMaxThreads || config.dynamicSmemBytes != 0) {
        return cudaErrorInvalidConfiguration;
    }
    const std::lock_guard<std::mutex> lock(launching);
    count = static_cast<unsigned>(block_threads);
    gridDim = grid;
    blockDim = block;
    kernel_body = body;
    kernel_call = call;
    const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
    // A step that has no divisor in common with the number of blocks comes past all of them.
    std::uint64_t at = order == kInOrder ? 0 : order == kReversed ? blocks - 1 : next_random() % blocks;
    std::uint64_t step = order == kInOrder ? 1 : order == kReversed ? blocks - 1 : next_random() % blocks;
    while (std::gcd(blocks, step) != 1) ++step;
    race_release(&grid_begin);
    for (std::uint64_t k = 0; k < blocks; ++k) {
        blockIdx = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                    static_cast<unsigned>(at / grid.x / grid.y)};
        run_block();
        at = (at + step) % blocks;
    }
    race_acquire(&grid_end);
    return cudaSuccess;
}

}  // namespace cuda_on_cpu
