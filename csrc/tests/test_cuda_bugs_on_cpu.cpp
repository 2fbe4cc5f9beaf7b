// Bugs of kernels that the CUDA runtime on the CPU sees: a test of the tests.
//
// Each ends a child of this process. ThreadSanitizer follows a child only if its parent had one thread, and a
// fiber is one for it: nothing runs a kernel here before the last child has ended.
#include <sys/wait.h>
#include <unistd.h>

#include "cuda_arrays.hpp"

namespace {

using namespace on_cpu;

__global__ void bad_mask() { __ballot_sync(1U, 1); }
__global__ void different_collectives() {
    if (threadIdx.x < 16) {
        __ballot_sync(kAll, 1);
    } else {
        __syncwarp();
    }
}
__global__ void different_masks() { __ballot_sync(threadIdx.x == 0 ? kAll : ~2U | 1U << threadIdx.x, 1); }
__global__ void barrier_without_all() {
    if (threadIdx.x == 7) {
        __syncwarp();
    } else {
        __syncthreads();
    }
}
__global__ void beyond_the_end(int* values) { values[threadIdx.x] = 1; }

// Something is missing of each, and the order of the threads may hide it.
__global__ void no_barrier(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = static_cast<int>(threadIdx.x);
    out[threadIdx.x] = values[63 - threadIdx.x];
}
__global__ void one_barrier_too_few(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    const int other = values[63 - threadIdx.x];
    values[threadIdx.x] = other;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}
// Votes order no memory: that takes a __syncwarp.
__global__ void vote_for_barrier(int* out) {
    __shared__ int values[32];
    values[threadIdx.x] = static_cast<int>(threadIdx.x);
    __any_sync(kAll, 1);
    out[threadIdx.x] = values[31 - threadIdx.x];
}
__global__ void no_atomic(int* out) { ++out[0]; }
__global__ void warp_barrier(int* out) {
    __shared__ int values[32];
    for (int i = 0; i < 3; ++i) {
        values[threadIdx.x] = static_cast<int>(threadIdx.x) + i;
        __syncwarp();
        out[threadIdx.x] = values[31 - threadIdx.x];
        __syncwarp();
    }
}
// Blocks have no order.
__global__ void word_of_all_blocks(int* out) {
    if (threadIdx.x == 0) out[0] = static_cast<int>(blockIdx.x);
}
__global__ void read_of_another_block(int* out) {
    __syncthreads();
    if (threadIdx.x == 0 && blockIdx.x == 0) out[1] = 1;
    __syncthreads();
    if (threadIdx.x == 5 && blockIdx.x == 1) out[2] = out[1];
    __syncthreads();
}
// Nothing is wrong with these.
__global__ void atomics_of_blocks(int* out) { atomicAdd(out, 1); }
__global__ void disjoint_words(int* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 1; }
__global__ void shared_by_turns(int* out) {
    __shared__ int values[16];
    int own[4] = {1, 2, 3, static_cast<int>(blockIdx.x)};
    int* volatile on_stack = own;
    values[threadIdx.x] = on_stack[threadIdx.x % 4];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = values[15 - threadIdx.x];
}

// What a bug of a kernel says when it ends the program.
template <typename Function>
std::string last_words(Function function) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        function();
        _exit(0);
    }
    close(ends[1]);
    std::string words;
    char buffer[256];
    for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
        words.append(buffer, static_cast<std::size_t>(n));
    }
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return words;
}

bool contains(const std::string& text, const char* part) {
    const bool found = text.find(part) != std::string::npos;
    if (!found) std::fprintf(stderr, "no \"%s\" in: %s\n", part, text.c_str());
    return found;
}

void bugs_are_named() {
    under_all_schedules([]() {
        CHECK(contains(last_words([]() { launch(bad_mask, 1, 32); }), "does not hold the caller"));
        const std::string words = last_words([]() { launch(different_collectives, dim3(1, 2), 32); });
        CHECK(contains(words, "lanes of a warp meet in different collectives"));
        CHECK(contains(words, "waits in __ballot_sync, mask ffffffff") &&
              contains(words, "waits in __syncwarp, mask ffffffff"));
        CHECK(contains(last_words([]() { launch(different_masks, 1, 32); }), "different collectives"));
        const std::string dead = last_words([]() { launch(barrier_without_all, 1, 64); });
        CHECK(contains(dead, "deadlock") && contains(dead, "thread 7 waits in __syncwarp"));
        CHECK(contains(dead, "thread 63 waits in __syncthreads"));
    });
}

#if defined(__SANITIZE_ADDRESS__)
// One element too many is seen.
void bounds() {
    const std::string words = last_words([]() {
        const Array<int> values(std::vector<int>(63));
        launch(beyond_the_end, 1, 64, values.get());
    });
    CHECK(contains(words, "heap-buffer-overflow") && contains(words, "beyond_the_end"));
}
#else
void bounds() {
    const Array<int> values(std::vector<int>(64));
    CHECK(launch(beyond_the_end, 1, 64, values.get()) == cudaSuccess);
    CHECK(values.to_host() == std::vector<int>(64, 1));
}
#endif

#if defined(__SANITIZE_THREAD__)
// Of RETINAFACE_RACE_CHECK: what nothing orders is seen, whatever came first.
void races() {
    struct Race {
        void (*kernel)(int*);
        const char* name;
        unsigned blocks;
        unsigned threads;
    };
    under_all_schedules([]() {
        for (const Race& race : {Race{no_barrier, "no_barrier", 1, 64},
                                 {one_barrier_too_few, "one_barrier_too_few", 1, 64},
                                 {vote_for_barrier, "vote_for_barrier", 1, 32},
                                 {no_atomic, "no_atomic", 1, 64},
                                 {word_of_all_blocks, "word_of_all_blocks", 8, 32},
                                 {read_of_another_block, "read_of_another_block", 2, 32}}) {
            const std::string words = last_words([&]() {
                const Array<int> out(std::vector<int>(64));
                launch(race.kernel, race.blocks, race.threads, out.get());
            });
            CHECK(contains(words, "data race") && contains(words, race.name));
        }
    });
}
#else
void races() {
    static_cast<void>(no_barrier), static_cast<void>(one_barrier_too_few);
    static_cast<void>(vote_for_barrier), static_cast<void>(no_atomic);
    static_cast<void>(word_of_all_blocks), static_cast<void>(read_of_another_block);
}
#endif

// What is ordered is believed: a report would end this program.
void no_races() {
    under_all_schedules([]() {
        const Array<int> out(std::vector<int>(64));
        CHECK(launch(warp_barrier, 1, 32, out.get()) == cudaSuccess);
        CHECK(out.to_host()[0] == 33);
        CHECK(launch(shared_by_turns, 4, 16, out.get()) == cudaSuccess);
        CHECK(out.to_host()[48] == 3 && out.to_host()[63] == 1);
        CHECK(launch(disjoint_words, 4, 16, out.get()) == cudaSuccess);
        CHECK(out.to_host() == std::vector<int>(64, 1));
        CHECK(launch(atomics_of_blocks, 4, 16, out.get()) == cudaSuccess);
        CHECK(out.to_host()[0] == 65);
    });
}

}  // namespace

#if defined(__SANITIZE_THREAD__)
// NOLINTNEXTLINE(bugprone-reserved-identifier)
extern "C" const char* __tsan_default_options() { return "halt_on_error=1"; }
#endif

CHECK_MAIN(bugs_are_named, races, bounds, no_races)
